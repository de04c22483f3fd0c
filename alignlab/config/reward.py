"""The shapes of `conf/reward/`: where a reward comes from, and how several become one."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from alignlab.config import user_function
from alignlab.config.judge import Server, address_faults
from alignlab.config.settings import Count, NotNegative, Positive, Settings
from alignlab.errors import Fault


class ModelReward(Settings):
    """A reward model: a stage of this command, a folder, or one on the hub."""

    kind: Literal["model"]
    path: str


class ClassifierReward(Settings):
    """One class of a sequence classifier."""

    kind: Literal["classifier"]
    path: str
    label: str
    output: Literal["logit", "probability"]
    include_prompt: bool


class FunctionReward(Settings):
    """A function in Python."""

    kind: Literal["function"]
    function: str

    def faults(self) -> Iterator[Fault]:
        if what := user_function.wrong(self.function):
            yield Fault("function", what, "give package.module:function")


class UrlReward(Settings):
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


class JudgeReward(Server):
    """A chat model behind a server, asked for marks."""

    kind: Literal["judge"]
    instructions: str
    question: str
    best: Annotated[int, Field(ge=2)]
    reasons: bool


Single = Annotated[
    ModelReward | ClassifierReward | FunctionReward | UrlReward | JudgeReward, Field(discriminator="kind")
]


class EnsembleReward(Settings):
    """Several rewards of the same sort, of which one score is made."""

    kind: Literal["ensemble"]
    members: Annotated[dict[str, Single], Field(min_length=2)]
    combine: Literal["mean", "minimum", "mean_less_spread"]
    spread_coef: NotNegative


class Part(Settings):
    """One reward of a mixture."""

    weight: float
    normalize: bool
    reward: Annotated[
        ModelReward | ClassifierReward | FunctionReward | UrlReward | JudgeReward | EnsembleReward,
        Field(discriminator="kind"),
    ]


class MixtureReward(Settings):
    """A weighted sum of rewards, and what is done to it."""

    kind: Literal["mixture"]
    parts: Annotated[dict[str, Part], Field(min_length=1)]
    normalize: bool
    clip: Positive | None
    missing_eos_penalty: NotNegative
    length_penalty: NotNegative


AnyReward = Annotated[
    ModelReward | ClassifierReward | FunctionReward | UrlReward | JudgeReward | EnsembleReward | MixtureReward,
    Field(discriminator="kind"),
]
One = ModelReward | ClassifierReward | FunctionReward | UrlReward | JudgeReward


def singles(reward: AnyReward, place: str = "reward") -> Iterator[tuple[str, One]]:
    """The rewards that a reward is made of, each with its place in the config."""
    if isinstance(reward, EnsembleReward):
        yield from ((f"{place}.members.{name}", member) for name, member in reward.members.items())
    elif isinstance(reward, MixtureReward):
        for name, part in reward.parts.items():
            yield from singles(part.reward, f"{place}.parts.{name}.reward")
    else:
        yield place, reward
