"""A measurement of completions as a metric of Hugging Face's `evaluate`."""

from typing import Any

import evaluate
from datasets import Features, Value

from alignlab.config import extensions
from alignlab.config.compose import compose
from alignlab.errors import failure
from alignlab.evaluation.metrics import score_records
from alignlab.evaluation.protocol import ChosenMeasurement, Context, view_of
from alignlab.evaluation.replies import Item, Reply
from alignlab.evaluation.scores import interval


class MeasurementMetric(evaluate.Metric):  # type: ignore[misc, unused-ignore]
    """A measurement by its name: `compute(predictions=completions)` returns its values.

    `prompts` are what was asked, and `kind` the kind of prompts ("harmful" or "safe" for the measurement refusal); a
    list gives each prompt its own.
    """

    def __init__(self, chosen: ChosenMeasurement, context: Context) -> None:
        self.chosen, self.context = chosen, context.of(chosen.settings)
        super().__init__()

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=str(self.chosen.module.__doc__),
            citation="",
            inputs_description="predictions: completions",
            features=Features({"predictions": Value("string")}),
        )

    def _compute(
        self, predictions: list[str], prompts: list[str] | None = None, kind: str | list[str] = ""
    ) -> dict[str, float]:
        from alignlab.models.sampling import Completion

        prompts = prompts or [""] * len(predictions)
        kinds = [kind] * len(predictions) if isinstance(kind, str) else kind
        replies = [
            Reply(Item(str(place), [{"role": "user", "content": prompt}], own), (Completion(text, True, ()),))
            for place, (text, prompt, own) in enumerate(zip(predictions, prompts, kinds, strict=True))
        ]
        records = list(self.chosen.module.score(replies, self.context))
        scores = score_records(self.chosen.metrics(records), records)
        return {name: interval(one, self.context.config.evaluation.confidence).value for name, one in scores.items()}


def as_metric(name: str, *overrides: str) -> MeasurementMetric:
    """Return a measurement as an `evaluate.Metric`; `overrides` are settings of the command line.

    Raises a `Failure` for a measurement that asks for log-probabilities: it has no completions to score.
    """
    config = compose(f"measure=[{name}]", *overrides)
    module: Any = extensions.load("measures", name)
    chosen = ChosenMeasurement(name, "policy", module, config.measure[name], view_of(module))
    if name not in COMPLETED:
        raise failure("as_metric", f"{name} does not score completions alone", f"use one of {', '.join(COMPLETED)}")
    return MeasurementMetric(chosen, Context(config, None))  # type: ignore[arg-type]


COMPLETED = ("toxicity", "refusal", "harmbench", "moderation")
