"""Scores of one model, one value per prompt, and the measurements that `result.json` reports of them.

Every measure returns `Scores`. Two models that were measured on the same prompts are compared prompt by prompt, so that
the variation between prompts cancels in their difference.
"""

from collections.abc import Mapping
from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Literal, NamedTuple, NotRequired, TypedDict

from alignlab.config.evaluation import Evaluation

if TYPE_CHECKING:
    import numpy as np

    from alignlab.evaluation.statistics import Difference, Interval, OfSums

Better = Literal["lower", "higher", "neither"]


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
    """A value and the ends of its confidence interval; the ends are null where one prompt tells nothing."""

    value: float
    low: float | None
    high: float | None


class DifferenceRecord(IntervalRecord):
    """A paired difference, and what it allows to say.

    `error` is its standard error and `p` the two-sided p-value of no difference. `p_adjusted` is corrected for all
    differences of the result (Holm); null for a measure that is neither good nor bad. `detectable` is the smallest true
    change that would be seen in 80 of 100 such comparisons after that correction. `not_worse` says that the interval
    excludes a loss of more than `margin`.
    """

    p: float
    error: float | None
    p_adjusted: float | None
    detectable: float | None
    margin: float
    not_worse: bool


class Measurement(IntervalRecord):
    """One row of `result.json`: a measure of a model over `n` rows, beside the models that it came from.

    `clusters` are the independent ones of the rows: the prompts. `before` is the model that the chain started from,
    `previous` the one that the stage started from; either is left out where it was not measured. `difference` holds the
    paired difference to each of them.
    """

    name: str
    n: int
    clusters: int
    rate: bool
    better: Better
    before: NotRequired[IntervalRecord]
    previous: NotRequired[IntervalRecord]
    difference: dict[str, DifferenceRecord]


def measurements(
    now: Mapping[str, Scores],
    before: Mapping[str, Scores] | None,
    previous: Mapping[str, Scores] | None,
    settings: Evaluation,
) -> list[Measurement]:
    """Compare each measure of a model with the models that it came from; p-values are corrected for their number."""
    rows = [
        measurement(scores, (before or {}).get(name), (previous or {}).get(name), settings)
        for name, scores in now.items()
    ]
    correct(rows, settings.confidence)
    return rows


def measurement(now: Scores, before: Scores | None, previous: Scores | None, settings: Evaluation) -> Measurement:
    """Compare one measure of a model with the models that it came from."""
    row = row_of(now.name, interval(now, settings), len(now.values), now.better, now.rate)
    if before is not None:
        row["before"] = as_record(interval(before, settings))
        row["difference"]["before"] = difference_record(now, before, settings)
    if previous is not None:
        row["previous"] = as_record(interval(previous, settings))
        row["difference"]["previous"] = difference_record(now, previous, settings)
    return row


def difference_record(now: Scores, then: Scores, settings: Evaluation) -> DifferenceRecord:
    """Return a paired difference; `correct` adds what depends on the other differences.

    The margin of a rate is in its own unit, that of any other measure a share of the earlier value.
    """
    from alignlab.evaluation.decisions import not_worse

    changed = difference(now, then, settings)
    margin = settings.margin * (1.0 if now.rate else abs(interval(then, settings).value))
    return {
        **as_record(changed.interval),
        "error": finite(changed.error),
        "p": changed.p,
        "p_adjusted": None,
        "detectable": None,
        "margin": margin,
        "not_worse": not_worse(changed.interval, now.better == "higher", margin),
    }


def correct(rows: list[Measurement], confidence: float) -> None:
    """Correct the p-values of all differences that may be called better or worse, and their detectable changes.

    A stage that started from the base model has one difference under two names, which counts once.
    """
    from alignlab.evaluation.decisions import detectable, holm

    directed = [row["difference"] for row in rows if row["better"] != "neither"]
    tests = [one for pair in directed for name, one in pair.items() if name == "before" or one != pair.get("before")]
    adjusted = {id(one): p for one, p in zip(tests, holm([one["p"] for one in tests]), strict=True)}
    for row in rows:
        count = max(1, len(tests)) if row["better"] != "neither" else 1
        for name, one in row["difference"].items():
            if name != "before" and row["better"] != "neither" and id(one) not in adjusted:
                one |= row["difference"]["before"]
                continue
            one["p_adjusted"] = adjusted.get(id(one))
            if one["error"] is not None:
                one["detectable"] = finite(detectable(one["error"], row["clusters"], confidence, count))


def row_of(
    name: str, measured: "Interval", n: int, better: Better, rate: bool = False, clusters: int | None = None
) -> Measurement:
    """Return a measurement that is compared with no other model."""
    return {
        "name": name,
        "value": measured.value,
        "low": finite(measured.low),
        "high": finite(measured.high),
        "n": n,
        "clusters": n if clusters is None else clusters,
        "rate": rate,
        "better": better,
        "difference": {},
    }


def as_record(interval: "Interval") -> IntervalRecord:
    """Return an interval as JSON stores it."""
    return {"value": interval.value, "low": finite(interval.low), "high": finite(interval.high)}


def finite(value: float) -> float | None:
    """Return a number as JSON stores it: null where it is infinite."""
    return value if isfinite(value) else None


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
    from alignlab.evaluation.statistics import mean_columns, measure_interval, rate_interval

    if scores.rate:
        return rate_interval(scores.values, settings.confidence)
    return measure_interval(mean_columns(scores.values, scores.weights), of_sums(scores), settings.confidence)


def difference(now: Scores, then: Scores, settings: Evaluation) -> "Difference":
    """Compute how much a measure changed between two models, prompt by prompt."""
    from alignlab.evaluation.statistics import mean_columns, measure_difference, rate_difference

    if now.ids != then.ids:
        raise ValueError(f"{now.name}: the two models were not measured on the same prompts")
    if now.rate:
        return rate_difference(now.values, then.values, settings.confidence)
    columns, earlier = (mean_columns(one.values, one.weights) for one in (now, then))
    return measure_difference(columns, earlier, of_sums(now), settings.confidence)


def of_sums(scores: Scores) -> "OfSums":
    """Return the function from column sums to the number that is reported."""
    import numpy as np

    from alignlab.evaluation.statistics import mean_of

    return (lambda sums: np.exp(mean_of(sums))) if scores.exponential else mean_of
