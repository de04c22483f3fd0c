"""Settings of `conf/judge/`: who says which of several answers is better."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SerializeAsAny, Tag

from alignlab.config.settings import EXTENSION, Count, NotNegative, Positive, Settings, Share, by_kind
from alignlab.errors import Fault

Paths = Annotated[
    tuple[Annotated[Path, Field(strict=False)], ...],
    BeforeValidator(lambda given: [given] if isinstance(given, str) else given),
    Field(strict=False),
]


class JudgeSettings(Settings):
    """The base of every judge's settings; a user's own `Config` derives from it."""

    kind: str


class RewardJudge(JudgeSettings):
    """The reward of this command: the answer with more of it is better."""

    kind: Literal["reward"]
    name: str
    batch_size: Count


class AnnotatorsJudge(JudgeSettings):
    """Simulated annotators of the pocket world."""

    kind: Literal["annotators"]
    reliabilities: Annotated[tuple[Share, ...], Field(strict=False, min_length=1)]
    seed: Annotated[int, Field(ge=0)] | None


class HumanJudge(JudgeSettings):
    """People who filled in tables."""

    kind: Literal["human"]
    path: Paths
    criteria: Annotated[dict[str, str], Field(min_length=1)]

    def faults(self) -> Iterator[Fault]:
        for path in self.path:
            if not path.is_file():
                yield Fault(
                    "path", f"{path} is not there", "give the tables that people have filled in, or [] for none"
                )


def address_faults(url: str, key_env: str | None) -> Iterator[Fault]:
    """What is wrong with a server's address (`url`), or with the variable that holds its key (`key_env`)."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        yield Fault("url", f"{url!r} is no address of a server", "give http://… or https://…")
    if parts.username or parts.password:
        yield Fault("url", "holds a password", "put it into an environment variable and name that in key_env")
    if key_env and key_env not in os.environ:
        yield Fault("key_env", f"the environment variable {key_env} is not set", "set it to the server's key")


class Host(Settings):
    """A server that speaks OpenAI's protocol, and how patiently it is asked."""

    url: str
    model: str
    key_env: str | None
    timeout: Positive
    retries: Annotated[int, Field(ge=0)]
    backoff: NotNegative
    longest_wait: Positive
    concurrency: Count

    def faults(self) -> Iterator[Fault]:
        if self.url and not self.model:
            yield Fault("model", "no name was given", "give the model's name, as the server knows it")
        if self.url:
            yield from address_faults(self.url, self.key_env)


class Server(Host):
    """A server that is asked for JSON."""

    temperature: NotNegative
    max_tokens: Count
    format: Literal["json_schema", "json_object", "text"]

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if not self.url:
            yield from address_faults(self.url, self.key_env)


class OpenaiJudge(Server, JudgeSettings):
    """A chat model behind a server, asked to rank."""

    kind: Literal["openai"]
    criteria: Annotated[dict[str, str], Field(min_length=1)]
    instructions: str
    compare: Literal["pairs", "lists"]
    orders: Count
    reasons: bool
    give_up_after: Count
    price_read: NotNegative
    price_written: NotNegative

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.compare == "pairs" and self.orders > 2:
            yield Fault("orders", f"{self.orders} orders of two answers, and there are two", "use 2, or compare=lists")


class LocalJudge(JudgeSettings):
    """A language model that reads its verdict from log-probabilities, under the principles of a constitution."""

    kind: Literal["choice", "critique", "both"]
    principles: Literal["drawn", "all"]
    clamp: Annotated[tuple[Share, Share], Field(strict=False)]
    spread: Positive | None
    batch_size: Count

    def faults(self) -> Iterator[Fault]:
        if not self.clamp[0] < 0.5 < self.clamp[1]:
            yield Fault("clamp", f"{list(self.clamp)} leaves no room on both sides of 0.5", "write [0.02, 0.98]")


Local = (
    Annotated[LocalJudge, Tag("choice")] | Annotated[LocalJudge, Tag("critique")] | Annotated[LocalJudge, Tag("both")]
)
FeedbackJudge = Annotated[
    Local | Annotated[OpenaiJudge, Tag("openai")], by_kind("choice", "critique", "both", "openai")
]  # judges under a constitution
AnyJudge = Annotated[
    Local
    | Annotated[RewardJudge, Tag("reward")]
    | Annotated[AnnotatorsJudge, Tag("annotators")]
    | Annotated[HumanJudge, Tag("human")]
    | Annotated[OpenaiJudge, Tag("openai")]
    | Annotated[SerializeAsAny[JudgeSettings], Tag(EXTENSION)],
    by_kind("choice", "critique", "both", "reward", "annotators", "human", "openai"),
]
JUDGES: dict[str, type[JudgeSettings]] = {  # the built-in kinds
    "choice": LocalJudge,
    "critique": LocalJudge,
    "both": LocalJudge,
    "reward": RewardJudge,
    "annotators": AnnotatorsJudge,
    "human": HumanJudge,
    "openai": OpenaiJudge,
}
