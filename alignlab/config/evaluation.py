"""Settings of `conf/evaluation/` and `conf/measure/`: the measurements after each stage and their prompts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from alignlab.config.settings import Count, Positive, Seed, Settings, path_in_home
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
    data: str | None

    def faults(self) -> Iterator[Fault]:
        if self.data and not path_in_home(Path(self.data)).is_dir():
            now = "give the folder of the suites' files, such as evaluation.data=<folder>, or set ALIGNLAB_DATA"
            yield Fault("data", f"there is no folder {self.data}", now)


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
            if path and not path_in_home(Path(path)).exists():
                yield Fault(name, f"{path} is not there", "give a file of prompts")


class Suite(MeasureSettings):
    """Settings of a public suite: its file or folder, in place of the one in `evaluation.data`."""

    path: str | None

    def faults(self) -> Iterator[Fault]:
        if self.path and not path_in_home(Path(self.path)).exists():
            yield Fault("path", f"{self.path} is not there", "give the suite's file, or a folder of its files")


class TruthfulQa(Suite):
    """Settings of `conf/measure/truthfulqa.yaml`."""

    examples: bool


class Capabilities(MeasureSettings):
    """Settings of `conf/measure/capabilities.yaml`."""

    items: Count
    seed: Seed


MEASURES: dict[str, type[MeasureSettings]] = {  # the built-in measurements
    **dict.fromkeys(("gold", "reward", "rouge", "perplexity", "length", "kl", "pairs", "swaps"), MeasureSettings),
    **dict.fromkeys(("revisions", "ai_labels", "best_of_n"), MeasureSettings),
    "toxicity": Toxicity,
    "refusal": Refusal,
    "capabilities": Capabilities,
    **dict.fromkeys(("bbq", "crows_pairs", "stereoset", "winobias", "hhh", "behaviors"), Suite),
    "truthfulqa": TruthfulQa,
}
