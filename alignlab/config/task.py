"""Settings of `conf/task/`: the task of a command."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from alignlab.config import extensions
from alignlab.config.judge import Host
from alignlab.config.settings import Count, File, NotNegative, Reference, Settings
from alignlab.config.suggestions import close_to
from alignlab.errors import Fault

TASKS = ("train", "prepare", "evaluate", "report", "preferences", "chat", "generate")  # the built-in ones


class Task(Settings):
    """The task of a command; `Chat` and `Generate` have settings of their own."""

    name: str
    model: Reference | None = None
    run: File | None = None

    def faults(self) -> Iterator[Fault]:
        if self.name not in TASKS and extensions.module_name("tasks", self.name) is None:
            now = close_to(self.name, list(TASKS)) or f"write tasks/{self.name}.py in this folder to add it"
            yield Fault("name", f"{self.name!r} is none of {', '.join(TASKS)}", now)


class Evaluate(Task):
    """Settings of `conf/task/evaluate.yaml`: a model of the user's, or one behind a server."""

    server: Host

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if not self.model and not self.server.url:
            yield Fault("model", "no value was given", "add task.model=… (or task.server.url=… of a server)")


class Sampled(Task):
    """Settings of a task that samples completions of a model; a temperature of 0 takes the likeliest token."""

    model: Reference
    temperature: NotNegative
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_new_tokens: Count


class Chat(Sampled):
    """Settings of `conf/task/chat.yaml`."""

    beside: Reference | None
    system: str


class Generate(Sampled):
    """Settings of `conf/task/generate.yaml`."""

    prompts: File
    output: File | None
    samples: Count
    batch_size: Count

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if not self.prompts.is_file():
            yield Fault("prompts", f"{self.prompts} is not there", "give a file of prompts")


OWN_SETTINGS: dict[str, type[Task]] = {"evaluate": Evaluate, "chat": Chat, "generate": Generate}
