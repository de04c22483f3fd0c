"""Settings of `conf/task/`: the task of a command."""

from collections.abc import Iterator

from alignlab.config import extensions
from alignlab.config.settings import File, Reference, Settings
from alignlab.config.suggestions import close_to
from alignlab.errors import Fault

TASKS = ("train", "prepare", "evaluate", "report", "preferences")  # the built-in ones


class Task(Settings):
    """The task: train stages, prepare data, evaluate a model, write a report again, or make preference data."""

    name: str
    model: Reference | None = None
    run: File | None = None

    def faults(self) -> Iterator[Fault]:
        if self.name not in TASKS and extensions.module_name("tasks", self.name) is None:
            now = close_to(self.name, list(TASKS)) or f"write tasks/{self.name}.py in this folder to add it"
            yield Fault("name", f"{self.name!r} is none of {', '.join(TASKS)}", now)
