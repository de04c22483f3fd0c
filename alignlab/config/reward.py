"""Settings of `conf/reward/`: the kinds of reward, and how several are combined into one."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SerializeAsAny, Tag

from alignlab.config import user_function
from alignlab.config.judge import Server, address_faults
from alignlab.config.settings import EXTENSION, Count, NotNegative, Positive, Reference, Settings, by_kind
from alignlab.errors import Fault


class RewardSettings(Settings):
    """Base class of the settings of every reward; a user's own `Config` derives from it."""

    kind: str

    @property
    def inner(self) -> "Mapping[str, RewardSettings]":
        """Return the rewards that this one is made of, by their place in these settings; empty for a single one."""
        return {}

    @property
    def model_path(self) -> str | None:
        """Return the path or hub id of the model that scores, or `auto` for the rm stage; None without a model."""
        return None

    @property
    def scorer(self) -> Literal["reward_model", "classifier"] | None:
        """Return the kind of model that scores; None where only the reward's own code knows."""
        return None

    @property
    def required_label(self) -> str | None:
        """Return the label that the model must know, or None."""
        return None

    def sources(self) -> list[Path]:
        """Return the user's files whose code decides the scores."""
        return []


class ModelReward(RewardSettings):
    """A reward model: a stage of this command, a folder, or one on the hub."""

    kind: Literal["model"]
    path: Reference

    @property
    def model_path(self) -> str:
        return self.path

    @property
    def scorer(self) -> Literal["reward_model", "classifier"]:
        return "reward_model"


class ClassifierReward(RewardSettings):
    """One class of a sequence classifier."""

    kind: Literal["classifier"]
    path: Reference
    label: str
    output: Literal["logit", "probability"]
    include_prompt: bool

    @property
    def model_path(self) -> str:
        return self.path

    @property
    def scorer(self) -> Literal["reward_model", "classifier"]:
        return "classifier"

    @property
    def required_label(self) -> str:
        return self.label

    def faults(self) -> Iterator[Fault]:
        if self.path == "auto":
            yield Fault("path", "auto is a reward model, and no classifier", "give a classifier, or use reward=model")


class FunctionReward(RewardSettings):
    """A function in Python."""

    kind: Literal["function"]
    function: str

    def sources(self) -> list[Path]:
        return user_function.sources(self.function)

    def faults(self) -> Iterator[Fault]:
        if what := user_function.fault_in(self.function):
            yield Fault("function", what, "give package.module:function")


class UrlReward(RewardSettings):
    """A server that scores."""

    kind: Literal["url"]
    url: str
    timeout: Positive
    retries: Annotated[int, Field(ge=0)]
    backoff: NotNegative
    batch_size: Count
    key_env: str | None

    def faults(self) -> Iterator[Fault]:
        yield from address_faults(self.url, self.key_env)


class JudgeReward(Server, RewardSettings):
    """A chat model behind a server that grades single answers."""

    kind: Literal["judge"]
    instructions: str
    question: str
    best: Annotated[int, Field(ge=2)]
    reasons: bool


Single = (
    Annotated[ModelReward, Tag("model")]
    | Annotated[ClassifierReward, Tag("classifier")]
    | Annotated[FunctionReward, Tag("function")]
    | Annotated[UrlReward, Tag("url")]
    | Annotated[JudgeReward, Tag("judge")]
    | Annotated[SerializeAsAny[RewardSettings], Tag(EXTENSION)]
)
BY_KIND = by_kind("model", "classifier", "function", "url", "judge", "ensemble", "mixture", "constrained")


METRICS = {"mean", "error", "deviation", "held_out", "held_out_error", "spread"}  # `reward/…` of every rollout


class EnsembleReward(RewardSettings):
    """Several rewards of the same sort, combined into one score."""

    kind: Literal["ensemble"]
    members: Annotated[dict[str, Annotated[Single, BY_KIND]], Field(min_length=2)]
    combine: Literal["mean", "minimum", "mean_less_spread"]
    spread_coef: NotNegative

    @property
    def inner(self) -> Mapping[str, RewardSettings]:
        return {f"members.{name}": member for name, member in self.members.items()}

    def faults(self) -> Iterator[Fault]:
        for name in self.members.keys() & METRICS:
            yield Fault(f"members.{name}", "is the name of a metric of every rollout", "rename the member")


class Part(Settings):
    """One reward of a mixture."""

    weight: float
    normalize: bool
    reward: Annotated[Single | Annotated[EnsembleReward, Tag("ensemble")], BY_KIND]


class MixtureReward(RewardSettings):
    """A weighted sum of rewards, normalised, clipped and penalised."""

    kind: Literal["mixture"]
    parts: Annotated[dict[str, Part], Field(min_length=1)]
    normalize: bool
    clip: Positive | None
    missing_eos_penalty: NotNegative
    length_penalty: NotNegative

    @property
    def inner(self) -> Mapping[str, RewardSettings]:
        return {f"parts.{name}.reward": part.reward for name, part in self.parts.items()}

    def faults(self) -> Iterator[Fault]:
        for name in self.parts.keys() & {"normalize", "clip", "missing_eos_penalty", "length_penalty"}:
            yield Fault(f"parts.{name}", "is the name of a term of every mixture", "rename the part")
        for name in self.parts.keys() & METRICS:
            yield Fault(f"parts.{name}", "is the name of a metric of every rollout", "rename the part")


class Cost(Settings):
    """A reward whose mean has a bound, and how its scores become a rate."""

    bound: float
    threshold: float | None
    floor: float | None
    ceiling: float | None
    reward: Annotated[Single | Annotated[EnsembleReward, Tag("ensemble")], BY_KIND]

    def faults(self) -> Iterator[Fault]:
        if self.floor is not None and self.ceiling is not None and self.ceiling <= self.floor:
            yield Fault("ceiling", f"{self.ceiling:g} is not above floor ({self.floor:g})", "give a higher one")


class ConstrainedReward(RewardSettings):
    """A reward that is maximised subject to bounds on the mean of others."""

    kind: Literal["constrained"]
    objective: Annotated[Single | Annotated[EnsembleReward, Tag("ensemble")], BY_KIND]
    costs: Annotated[dict[str, Cost], Field(min_length=1)]
    proportional: NotNegative
    integral: NotNegative
    derivative: NotNegative
    initial_weight: NotNegative
    max_weight: Positive

    @property
    def inner(self) -> Mapping[str, RewardSettings]:
        return {"objective": self.objective} | {
            f"costs.{name}.reward": cost.reward for name, cost in self.costs.items()
        }

    def faults(self) -> Iterator[Fault]:
        for name in self.costs.keys() & {"objective", *METRICS}:
            yield Fault(f"costs.{name}", "is the name of the objective or of a metric", "rename the cost")
        if self.initial_weight > self.max_weight:
            yield Fault("initial_weight", f"{self.initial_weight:g} is above max_weight ({self.max_weight:g})")


AnyReward = Annotated[
    Single
    | Annotated[EnsembleReward, Tag("ensemble")]
    | Annotated[MixtureReward, Tag("mixture")]
    | Annotated[ConstrainedReward, Tag("constrained")],
    BY_KIND,
]
REWARDS: dict[str, type[RewardSettings]] = {  # the built-in kinds
    "model": ModelReward,
    "classifier": ClassifierReward,
    "function": FunctionReward,
    "url": UrlReward,
    "judge": JudgeReward,
    "ensemble": EnsembleReward,
    "mixture": MixtureReward,
    "constrained": ConstrainedReward,
}


def every(reward: RewardSettings, place: str = "reward") -> Iterator[tuple[str, RewardSettings]]:
    """Yield a reward and the rewards that it is made of, at any depth, each with its place in the config."""
    yield place, reward
    for name, part in reward.inner.items():
        yield from every(part, f"{place}.{name}")


def singles(reward: RewardSettings, place: str = "reward") -> Iterator[tuple[str, RewardSettings]]:
    """Yield the rewards that are not made of others, each with its place in the config."""
    yield from ((at, one) for at, one in every(reward, place) if not one.inner)
