"""Settings of `conf/evaluation/` and `conf/measure/`: the measurements after each stage and their prompts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field

from alignlab.config.constitution import Constitution
from alignlab.config.judge import AnyJudge, Host, address_faults
from alignlab.config.settings import Count, Names, NotNegative, Positive, Reference, Seed, Settings, path_in_home
from alignlab.config.suggestions import close_to
from alignlab.errors import Fault

Value = TypeVar("Value")


def unique(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """Return values without repetitions."""
    return tuple(dict.fromkeys(values))


class Refusals(Settings):
    """The scorers of refusals and their models; `classes` maps a classifier's labels to classes."""

    scorers: Annotated[
        tuple[Literal["phrases", "classifier", "judge"], ...], Field(strict=False, min_length=1), AfterValidator(unique)
    ]
    classifier: str | None
    classes: dict[str, Literal["full", "partial", "compliance"]]
    judge_model: str | None
    server: Host

    def faults(self) -> Iterator[Fault]:
        if "classifier" in self.scorers and not (self.classifier and self.classes):
            yield Fault("classifier", "the scorer classifier needs a model", "set it, and classes for its labels")
        if "judge" in self.scorers and not (self.judge_model or self.server.url):
            yield Fault("judge_model", "the scorer judge needs a model", "set it, or server.url and server.model")


class Evaluation(Settings):
    """The held-out prompts that every stage is measured on, and how its answers are sampled."""

    enabled: bool
    split: Literal["validation", "test"]
    prompts: Count
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_new_tokens: Count
    batch_size: Count
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    margin: Annotated[float, Field(gt=0, lt=1)]
    primary: Names
    reward_model: str | None
    samples: Annotated[int, Field(ge=0)]
    data: str | None
    contamination: bool
    tasks: Names
    refusals: Refusals
    refusal_labels: str | None

    def faults(self) -> Iterator[Fault]:
        if self.data and not path_in_home(Path(self.data)).is_dir():
            now = "give the folder of the suites' files, such as evaluation.data=<folder>, or set ALIGNLAB_DATA"
            yield Fault("data", f"there is no folder {self.data}", now)
        if self.refusal_labels and not path_in_home(Path(self.refusal_labels)).is_file():
            now = "give a file with prompt, completion and final_label in each row"
            yield Fault("refusal_labels", f"{self.refusal_labels} is not there", now)


class MeasureSettings(Settings):
    """Settings of one measurement; a measurement that has some declares a class of its own."""


class Toxicity(MeasureSettings):
    """Settings of `conf/measure/toxicity.yaml`."""

    detoxify: str | None
    model: str | None
    label: str | None

    def faults(self) -> Iterator[Fault]:
        if self.model and self.detoxify:
            yield Fault("model", "detoxify is set as well", "choose one scorer")
        if self.model and self.label is None:
            yield Fault("label", "missing, though model is set", "name the label that means toxic")


class Refusal(MeasureSettings):
    """Settings of `conf/measure/refusal.yaml`."""

    harmful: str | None
    safe: str | None
    prompts: Count

    def faults(self) -> Iterator[Fault]:
        for name, path in (("harmful", self.harmful), ("safe", self.safe)):
            if path and not path_in_home(Path(path)).exists():
                yield Fault(name, f"{path} is not there", "give a file of prompts")


class Suite(MeasureSettings):
    """Settings of a public suite: its file or folder, in place of the one in `evaluation.data`."""

    path: str | None

    in_pocket: ClassVar[bool] = False  # the pocket world has rows for it, too

    def faults(self) -> Iterator[Fault]:
        if self.path and not path_in_home(Path(self.path)).exists():
            yield Fault("path", f"{self.path} is not there", "give the suite's file, or a folder of its files")


class RealToxicityPrompts(Suite, Toxicity):
    """Settings of `conf/measure/realtoxicityprompts.yaml`: a suite with a scorer of toxicity."""

    samples: Count
    max_new_tokens: Count


class Bold(Suite, Toxicity):
    """Settings of `conf/measure/bold.yaml`: a suite with a scorer of toxicity."""

    prompts: Count
    max_new_tokens: Count


ATTACKS = ("none", "prefix_injection", "refusal_suppression", "base64", "rot13", "role_play", "few_shot")


class Jailbreaks(Suite):
    """Settings of `conf/measure/jailbreaks.yaml`."""

    attacks: Annotated[tuple[str, ...], Field(strict=False, min_length=1), AfterValidator(unique)]
    prompts: Count

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        for name in self.attacks:
            for part in name.split("+"):
                if part not in ATTACKS:
                    now = close_to(part, list(ATTACKS)) or f"use {', '.join(ATTACKS)}, or some joined by +"
                    yield Fault("attacks", f"there is no attack {part!r}", now)


class Durability(Suite):
    """Settings of `conf/measure/durability.yaml`."""

    steps: Annotated[tuple[Count, ...], Field(strict=False, min_length=1), AfterValidator(unique)]
    examples: Count
    prompts: Count
    batch_size: Count
    learning_rate: Positive
    rank: Count

    in_pocket = True


class Moderation(Suite):
    """Settings of `conf/measure/moderation.yaml`: a server that says which texts are harmful."""

    url: str
    model: str | None
    key_env: str | None
    timeout: Positive
    retries: Annotated[int, Field(ge=0)]
    backoff: NotNegative
    batch_size: Count
    prompts: Count

    def faults(self) -> Iterator[Fault]:
        yield from super().faults()
        if self.url:
            yield from address_faults(self.url, self.key_env)


class WinRate(MeasureSettings):
    """Settings of `conf/measure/win_rate.yaml`."""

    judge: AnyJudge
    constitution: Constitution
    judge_model: str | None
    baseline: Reference


class EvaluateMetric(MeasureSettings):
    """Settings of `conf/measure/evaluate_metric.yaml`; `options` are the keywords of the metric's `compute`."""

    metric: str | None
    options: dict[str, str | int | float | bool]


class TruthfulQa(Suite):
    """Settings of `conf/measure/truthfulqa.yaml`."""

    examples: bool


class Capabilities(MeasureSettings):
    """Settings of `conf/measure/capabilities.yaml`."""

    items: Count
    seed: Seed


MEASURES: dict[str, type[MeasureSettings]] = {  # the built-in measurements
    **dict.fromkeys(
        ("gold", "reward", "rouge", "perplexity", "length", "kl", "pairs", "cost", "swaps"), MeasureSettings
    ),
    **dict.fromkeys(("revisions", "ai_labels", "best_of_n"), MeasureSettings),
    "toxicity": Toxicity,
    "refusal": Refusal,
    "capabilities": Capabilities,
    **dict.fromkeys(("bbq", "crows_pairs", "stereoset", "winobias", "hhh", "behaviors"), Suite),
    "realtoxicityprompts": RealToxicityPrompts,
    "bold": Bold,
    "harmbench": Suite,
    "jailbreaks": Jailbreaks,
    "moderation": Moderation,
    "win_rate": WinRate,
    "reward_bench": Suite,
    "lm_eval": MeasureSettings,
    "evaluate_metric": EvaluateMetric,
    "durability": Durability,
    "truthfulqa": TruthfulQa,
}
