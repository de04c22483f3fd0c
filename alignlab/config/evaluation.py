"""Settings of `conf/evaluation/`: what is measured after each stage."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from alignlab.config.settings import Count, Positive, Settings
from alignlab.errors import Fault

Measure = Literal["gold", "toxicity", "reward", "rouge", "perplexity", "length"]


class Evaluation(Settings):
    """What is measured after each stage, on prompts that no stage has trained on."""

    enabled: bool
    split: Literal["validation", "test"]
    measures: Annotated[tuple[Measure, ...], Field(strict=False)] | None
    prompts: Count
    temperature: Positive
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_new_tokens: Count
    batch_size: Count
    resamples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    reward_model: str | None
    toxicity_model: str | None
    toxicity_label: str | None
    best_of_n: bool
    samples: Annotated[int, Field(ge=0)]

    def faults(self) -> Iterator[Fault]:
        if self.toxicity_model and self.toxicity_label is None:
            yield Fault("toxicity_label", "missing, though toxicity_model is set", "name the label that means toxic")
