"""Settings of `conf/evaluation/` and `conf/measure/`: the measurements after each stage and their prompts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from alignlab.config.settings import Count, Positive, Settings
from alignlab.errors import Fault


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
    reward_model: str | None
    samples: Annotated[int, Field(ge=0)]


class MeasureSettings(Settings):
    """Settings of one measurement; a measurement that has some declares a class of its own."""


class Toxicity(MeasureSettings):
    """Settings of `conf/measure/toxicity.yaml`."""

    model: str | None
    label: str | None

    def faults(self) -> Iterator[Fault]:
        if self.model and self.label is None:
            yield Fault("label", "missing, though model is set", "name the label that means toxic")


class Refusal(MeasureSettings):
    """Settings of `conf/measure/refusal.yaml`."""

    harmful: str | None
    safe: str | None
    prompts: Count

    def faults(self) -> Iterator[Fault]:
        for name, path in (("harmful", self.harmful), ("safe", self.safe)):
            if path and not Path(path).expanduser().exists():
                yield Fault(name, f"{path} is not there", "give a file of prompts")


MEASURES: dict[str, type[MeasureSettings]] = {  # the built-in measurements
    **dict.fromkeys(("gold", "reward", "rouge", "perplexity", "length", "kl", "pairs"), MeasureSettings),
    **dict.fromkeys(("revisions", "ai_labels", "best_of_n"), MeasureSettings),
    "toxicity": Toxicity,
    "refusal": Refusal,
}
