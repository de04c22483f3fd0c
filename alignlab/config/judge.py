"""Settings of `conf/judge/`: the judge that decides which of several answers is better.

A judge's settings also state what the rest of the program needs to know of its kind: the files it reads, the cost of
its labels, and the settings that do not change the labels.
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any, ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SerializeAsAny, Tag

from alignlab.config import credentials
from alignlab.config.settings import EXTENSION, Count, File, NotNegative, Positive, Settings, Share, by_kind, not_empty
from alignlab.errors import Fault

Paths = Annotated[
    tuple[File, ...],
    BeforeValidator(lambda value: [not_empty(value)] if isinstance(value, str) else value),
    Field(strict=False),
]


class Usage(NamedTuple):
    """The usage of labelling, and the rates to price it."""

    labels: int  # of one labeler on one item each
    read: int  # tokens
    written: int  # tokens
    seconds: float  # of the machine
    person_price: float  # for a person's label
    person_minutes: float
    machine_hour: float  # price of an hour


class JudgeSettings(Settings):
    """Base class of the settings of every judge; a user's own `Config` derives from it."""

    kind: str
    needs_pocket: ClassVar[bool] = False  # judges only prompts of the pocket world
    needs_reward: ClassVar[bool] = False  # scores by the reward of the command
    needs_model: ClassVar[bool] = False  # loads `judge_model`, and judges under the constitution
    ignored_in_labels: ClassVar[frozenset[str]] = frozenset()  # settings that change no label

    @property
    def server(self) -> "Server | None":
        """Return the server that judges, or None for a judge that runs here."""
        return None

    @property
    def most_answers(self) -> int | None:
        """Return how many answers to a prompt the judge can compare at most; None without a limit."""
        return None

    @property
    def to_fill_in(self) -> Mapping[str, str] | None:
        """Return the criteria of a table that people have to fill in first; None where there are labels to read."""
        return None

    def label_files(self) -> tuple[Path, ...]:
        """Return the files that the labels are read from."""
        return ()

    def label_settings(self) -> dict[str, Any]:
        """Return the settings that decide the labels."""
        return self.model_dump(mode="json", exclude=set(self.ignored_in_labels))

    def described(self, reward: str, judge_model: str) -> str:
        """Return a description of the judge; `reward` and `judge_model` are the command's."""
        return f"judge={self.kind}"

    def money_and_seconds(self, usage: Usage) -> tuple[float, float]:
        """Return the price of labels and their seconds; by default the machine's hours are priced."""
        return usage.seconds / 3600 * usage.machine_hour, usage.seconds


class RewardJudge(JudgeSettings):
    """The reward of this command: the answer with the higher score is better."""

    kind: Literal["reward"]
    name: str
    batch_size: Count

    needs_reward = True

    def described(self, reward: str, judge_model: str) -> str:
        return f"a reward ({reward})"


class AnnotatorsJudge(JudgeSettings):
    """Simulated annotators of the pocket world."""

    kind: Literal["annotators"]
    reliabilities: Annotated[tuple[Share, ...], Field(strict=False, min_length=1)]
    seed: Annotated[int, Field(ge=0)] | None

    needs_pocket = True

    def described(self, reward: str, judge_model: str) -> str:
        return "simulated annotators of the pocket world"


def missing_tables(paths: tuple[Path, ...]) -> Iterator[Fault]:
    """Yield a fault for each table that is not there."""
    for path in paths:
        if not path.is_file():
            yield Fault("path", f"{path} is not there", "give the tables that people have filled in, or [] for none")


class HumanJudge(JudgeSettings):
    """People who filled in tables."""

    kind: Literal["human"]
    path: Paths
    criteria: Annotated[dict[str, str], Field(min_length=1)]

    @property
    def to_fill_in(self) -> Mapping[str, str] | None:
        return None if self.path else self.criteria

    def label_files(self) -> tuple[Path, ...]:
        return self.path

    def described(self, reward: str, judge_model: str) -> str:
        return "people"

    def money_and_seconds(self, usage: Usage) -> tuple[float, float]:
        return usage.labels * usage.person_price, usage.labels * usage.person_minutes * 60

    def faults(self) -> Iterator[Fault]:
        yield from missing_tables(self.path)


def address_faults(url: str, key_env: str | None) -> Iterator[Fault]:
    """Yield the faults of a server's address (`url`) and of the variable that holds its key (`key_env`)."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        yield Fault("url", f"{url!r} is not the address of a server", "give http://… or https://…")
    yield from credentials.faults(url, "url")
    if not key_env:
        return
    if not re.fullmatch(r"[A-Za-z_]\w*", key_env, re.ASCII):
        yield Fault("key_env", "is not the name of an environment variable", "give the name, not the key itself")
    elif key_env not in os.environ:
        yield Fault("key_env", f"the environment variable {key_env} is not set", "set it to the server's key")
    elif not (key := os.environ[key_env].strip()).isascii() or not key.isprintable():
        yield Fault("key_env", f"the value of {key_env} holds characters that no header can carry", "set it again")


class Host(Settings):
    """A server that speaks OpenAI's protocol, with its timeouts and retries."""

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

    ignored_in_labels = frozenset(
        {
            *("url", "key_env", "timeout", "retries", "backoff", "longest_wait", "concurrency", "give_up_after"),
            *("price_read", "price_written"),
        }
    )

    @property
    def server(self) -> Server:
        return self

    @property
    def most_answers(self) -> int | None:
        return len(ascii_uppercase) if self.compare == "lists" else None

    def described(self, reward: str, judge_model: str) -> str:
        criteria = " and ".join(self.criteria)
        return f"{self.model}, which ranked by {criteria} ({self.compare}, shown {self.orders} times)"

    def money_and_seconds(self, usage: Usage) -> tuple[float, float]:
        return (usage.read * self.price_read + usage.written * self.price_written) / 1e6, usage.seconds

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.compare == "pairs" and self.orders > 2:
            yield Fault("orders", f"{self.orders} orders of two answers, and there are two", "use 2, or compare=lists")


class LocalJudge(JudgeSettings):
    """A language model that is asked under principles, and read from its log-probabilities."""

    kind: Literal["choice", "critique", "both"]
    principles: Literal["drawn", "all"]
    clamp: Annotated[tuple[Share, Share], Field(strict=False)]
    spread: Positive | None
    batch_size: Count

    needs_model = True

    def described(self, reward: str, judge_model: str) -> str:
        return f"a language model ({judge_model}) under a constitution (`judge={self.kind}`)"

    def faults(self) -> Iterator[Fault]:
        if not self.clamp[0] < 0.5 < self.clamp[1]:
            yield Fault("clamp", f"{list(self.clamp)} leaves no room on both sides of 0.5", "write [0.02, 0.98]")


Local = (
    Annotated[LocalJudge, Tag("choice")] | Annotated[LocalJudge, Tag("critique")] | Annotated[LocalJudge, Tag("both")]
)
PairJudge = Annotated[  # compares two answers under a principle
    Local | Annotated[OpenaiJudge, Tag("openai")], by_kind("choice", "critique", "both", "openai")
]
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
