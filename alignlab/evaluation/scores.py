"""Scores of one model, one value per prompt, and the measurements that `result.json` reports of them.

Every measure returns `Scores`. Two models that were measured on the same prompts are compared prompt by prompt, so that
the variation between prompts cancels in their difference.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NotRequired, TypedDict

from alignlab.config.evaluation import Evaluation

if TYPE_CHECKING:
    import numpy as np

    from alignlab.evaluation.statistics import Interval

Better = Literal["lower", "higher", "neither"]
FEWEST_ROWS = 10  # a change on fewer rows is never called better or worse
SEED = 0  # of the bootstrap: the same scores give the same interval in every run


class Scores(NamedTuple):
    """One measure of one model: a value for each prompt that it applies to.

    `rate` says that values are 0 or 1. `weights` (tokens of a row) make the mean a weighted one. `exponential`
    reports exp(mean), as perplexity does.
    """

    name: str
    values: "np.ndarray"  # [n]
    ids: tuple[str, ...]  # [n]
    rate: bool
    better: Better
    weights: "np.ndarray | None" = None  # [n]
    exponential: bool = False


class IntervalRecord(TypedDict):
    """A value and the ends of its confidence interval."""

    value: float
    low: float
    high: float


class Measurement(IntervalRecord):
    """One row of `result.json`: a measure of a model over `n` prompts, beside the models that it came from.

    `before` is the model that the chain started from, `previous` the one that the stage started from; either is left
    out where it was not measured. `difference` holds the paired difference to each of them.
    """

    name: str
    n: int
    rate: bool
    better: Better
    before: NotRequired[IntervalRecord]
    previous: NotRequired[IntervalRecord]
    difference: dict[str, IntervalRecord]


def measurements(
    now: Mapping[str, Scores],
    before: Mapping[str, Scores] | None,
    previous: Mapping[str, Scores] | None,
    settings: Evaluation,
) -> list[Measurement]:
    """Compare each measure of a model with the models that it came from."""
    return [
        measurement(scores, (before or {}).get(name), (previous or {}).get(name), settings)
        for name, scores in now.items()
    ]


def measurement(now: Scores, before: Scores | None, previous: Scores | None, settings: Evaluation) -> Measurement:
    """Compare one measure of a model with the models that it came from."""
    row = row_of(now.name, interval(now, settings), len(now.values), now.better, now.rate)
    if before is not None:
        row["before"] = as_record(interval(before, settings))
        row["difference"]["before"] = as_record(difference(now, before, settings))
    if previous is not None:
        row["previous"] = as_record(interval(previous, settings))
        row["difference"]["previous"] = as_record(difference(now, previous, settings))
    return row


def row_of(name: str, measured: "Interval", n: int, better: Better, rate: bool = False) -> Measurement:
    """Return a measurement that is compared with no other model."""
    value, low, high = measured
    return {
        "name": name,
        "value": value,
        "low": low,
        "high": high,
        "n": n,
        "rate": rate,
        "better": better,
        "difference": {},
    }


def as_record(interval: "Interval") -> IntervalRecord:
    """Return an interval as JSON stores it."""
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def scores_of(sample: str, scores: Mapping[str, Scores]) -> dict[str, float]:
    """Return the values of one sample by measure; a measure of texts other than the completions has none."""
    values = {name: of_sample(measure, sample) for name, measure in scores.items() if not measure.exponential}
    return {name: value for name, value in values.items() if value is not None}


def of_sample(scores: Scores, sample: str) -> float | None:
    """Return the value of one sample; None where the measure does not apply to it."""
    places = places_of(scores.ids)
    return float(scores.values[places[sample]]) if sample in places else None


@lru_cache(maxsize=64)
def places_of(ids: tuple[str, ...]) -> dict[str, int]:
    """Return the place of each sample."""
    return {sample: place for place, sample in enumerate(ids)}


def interval(scores: Scores, settings: Evaluation) -> "Interval":
    """Compute a measure's value over all prompts, with its interval."""
    from alignlab.evaluation.statistics import bootstrap_mean, wilson

    if scores.rate:
        return wilson(float(scores.values.sum()), len(scores.values), settings.confidence)
    return bootstrap_mean(
        scores.values, settings.resamples, settings.confidence, SEED, scores.weights, transform(scores)
    )


def difference(now: Scores, then: Scores, settings: Evaluation) -> "Interval":
    """Compute how much a measure changed between two models, prompt by prompt."""
    from alignlab.evaluation.statistics import paired_difference

    if now.ids != then.ids:
        raise ValueError(f"{now.name}: the two models were not measured on the same prompts")
    weights = None if now.weights is None or then.weights is None else (now.weights, then.weights)
    return paired_difference(
        now.values, then.values, settings.resamples, settings.confidence, SEED, now.rate, weights, transform(now)
    )


def transform(scores: Scores) -> Any:
    """Return the function from a mean to the number that is reported; None where they are the same."""
    import numpy as np

    return np.exp if scores.exponential else None
