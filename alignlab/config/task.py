"""Settings of `conf/task/`: the task of a command."""

import os
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from alignlab.config import extensions
from alignlab.config.judge import Host, address_faults
from alignlab.config.settings import Count, File, Names, NotNegative, Positive, Reference, Settings, Share
from alignlab.config.suggestions import close_to
from alignlab.errors import Fault

TASKS = (
    "train",
    "prepare",
    "evaluate",
    "report",
    "preferences",
    "chat",
    "generate",
    "serve",
    "key",
    "compare",
    "gate",
    "promote",
    "rollback",
    "dashboard",
    "loop",
    "soup",
    "explain",
)  # the built-in ones
SHORTEST_KEY = 32  # characters of an API key that a user chooses


class Task(Settings):
    """The task of a command; those of `OWN_SETTINGS` have settings of their own."""

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


class StoreTask(Task):
    """Settings of a task that opens the store of feedback."""

    store: Reference
    store_env: str | None

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.store_env and self.store_env not in os.environ:
            yield Fault(
                "store_env", f"the environment variable {self.store_env} is not set", "set it to a database URL"
            )

    @property
    def database(self) -> str:
        """Return the file or the URL of the store."""
        return os.environ[self.store_env] if self.store_env else self.store


class Serve(StoreTask, Sampled):
    """Settings of `conf/task/serve.yaml`."""

    registry: File | None
    registry_poll: Positive
    beside: Reference | None
    engine: Literal["embedded", "gpu", "url"]
    url: str | None
    url_model: str | None
    key_env: str | None
    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    replicas: Count
    store_text: bool
    retention_days: Positive | None
    export_to: Annotated[tuple[Literal["mlflow", "opentelemetry"], ...], Field(strict=False)]
    max_batch: Count
    max_queue: Annotated[int, Field(ge=0)]
    timeout: Positive
    max_body_bytes: Count
    body_timeout: Positive
    requests_per_minute: Count
    wrong_keys_per_minute: Count
    safety: Annotated[tuple[Literal["input", "output"], ...], Field(strict=False)]
    safety_threshold: Share

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.replicas > 1 and not os.environ.get(self.store_env or "", self.store).startswith("postgres"):
            what = f"{self.replicas} servers cannot share an SQLite file"
            yield Fault("replicas", what, "name a PostgreSQL database with task.store or task.store_env")
        if self.engine == "url":
            if not (self.url and self.url_model):
                yield Fault("url", "engine=url needs a server", "set task.url and task.url_model")
            else:
                yield from address_faults(self.url, self.key_env)
            if self.registry:
                yield Fault("registry", "engine=url serves no model of a registry", "use task.engine=embedded or gpu")


class Key(StoreTask):
    """Settings of `conf/task/key.yaml`."""

    user: Annotated[str, Field(min_length=1, max_length=200)]
    role: Literal["use", "label", "administer"]
    key_env: str | None
    revoke: bool

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.key_env and len(os.environ.get(self.key_env, "")) < SHORTEST_KEY:
            what = f"the environment variable {self.key_env} holds no key of {SHORTEST_KEY} characters or more"
            yield Fault("key_env", what, "set it, such as to the output of: openssl rand -hex 32")


class Compare(Task):
    """Settings of `conf/task/compare.yaml`."""

    runs: Annotated[tuple[Reference, ...], Field(strict=False, min_length=2)]
    examples: Count


class Soup(Task):
    """Settings of `conf/task/soup.yaml`."""

    models: Annotated[tuple[Reference, Reference], Field(strict=False)]
    weights: Annotated[tuple[Share, ...], Field(strict=False, min_length=2)]
    baselines: Annotated[tuple[Reference, ...], Field(strict=False)]
    axes: Annotated[tuple[str, str], Field(strict=False)]
    examples: Count


class Bound(Settings):
    """A constraint on a candidate: how much worse than the baseline, and how bad at all, some measures may be.

    `limit` is a share of failures: 1 minus the value of a rate of which more is better.
    """

    measures: Annotated[Names, Field(min_length=1)]
    margin: Annotated[float, Field(gt=0, lt=1)]
    limit: Share | None


class Judged(Task):
    """Settings of a task that decides on a candidate; a bound that is null is not asked for."""

    model: Reference
    baseline: Reference
    objective: Names
    bounds: dict[str, Bound | None]
    examples: Count


class Promote(Judged):
    """Settings of `conf/task/promote.yaml`."""

    registry: File
    mlflow_model: str | None
    hub_model_id: str | None


class Loop(Task):
    """Settings of `conf/task/loop.yaml`."""

    folder: File
    feedback: Count
    comparisons: Share
    corrections: Share
    concurrency: Count


class Rollback(Task):
    """Settings of `conf/task/rollback.yaml`."""

    registry: File
    version: Count | None


class Dashboard(Task):
    """Settings of `conf/task/dashboard.yaml`."""

    outputs: File
    multirun: File
    host: str
    port: Annotated[int, Field(ge=0, le=65535)]
    token_env: str | None
    explain: bool

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.token_env and len(os.environ.get(self.token_env, "")) < SHORTEST_KEY:
            what = f"the environment variable {self.token_env} holds no token of {SHORTEST_KEY} characters or more"
            yield Fault("token_env", what, "set it, such as to the output of: openssl rand -hex 32")


class Explain(Task):
    """Settings of `conf/task/explain.yaml`."""

    stage: str | None
    prompt: str | None
    completion: str | None
    measure: str | None
    items: Count
    scorer: Reference | None
    label: str | None
    rows: Count
    neighbours: Count
    gradients: bool

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.completion is not None and self.prompt is None:
            yield Fault("completion", "has no prompt", "add task.prompt=…")
        if self.label is not None and self.scorer is None:
            yield Fault("label", "has no classifier", "add task.scorer=… of the classifier")


OWN_SETTINGS: dict[str, type[Task]] = {
    "evaluate": Evaluate,
    "chat": Chat,
    "generate": Generate,
    "serve": Serve,
    "key": Key,
    "compare": Compare,
    "gate": Judged,
    "promote": Promote,
    "loop": Loop,
    "soup": Soup,
    "rollback": Rollback,
    "dashboard": Dashboard,
    "explain": Explain,
}
