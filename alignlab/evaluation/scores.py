"""The measurements that `result.json` reports of the scores of a model, beside the models that it came from.

Two models that were measured on the same prompts are compared prompt by prompt, so that
the variation between prompts cancels in their difference.
"""

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import NotRequired, TypedDict

from alignlab.config.evaluation import Evaluation
from alignlab.evaluation.decisions import detectable, detectable_rate, holm, not_worse
from alignlab.evaluation.metrics import Better, Bounds, Scores
from alignlab.evaluation.statistics import (
    Difference,
    Interval,
    Table,
    measure_difference,
    measure_interval,
    rate_difference,
    rate_interval,
    wilson,
)


class IntervalRecord(TypedDict):
    """A value and the ends of its confidence interval; null where one prompt tells nothing and no bound is known."""

    value: float
    low: float | None
    high: float | None


class DifferenceRecord(IntervalRecord):
    """A paired difference, and what it allows to say.

    `error` is its standard error and `p` the two-sided p-value of no difference. `p_adjusted` is corrected for all
    differences of primary measures (Holm); null for the other measures. `detectable` is the smallest true change that
    would be seen in 80 of 100 such comparisons after the same correction; null where none would be. `not_worse` says
    that the interval excludes a loss of more than `margin`. `table` counts the rows of a rate that are 1 for both
    models, for this one alone, for the earlier one alone, and for neither; rows of one cluster count as fewer ones.
    """

    p: float
    error: float | None
    p_adjusted: float | None
    detectable: float | None
    margin: float
    not_worse: bool
    table: NotRequired[Table]


class Measurement(IntervalRecord):
    """One row of `result.json`: a measure of a model over `n` rows, beside the models that it came from.

    Rows of another `version` of a measure must not be compared with it.
    `clusters` are the independent ones of the rows: the prompts. `before` is the model that the chain started from,
    `previous` the one that the stage started from; either is left out where it was not measured. `difference` holds the
    paired difference to each of them, `controls` what subjects without a model score (`alignlab.evaluation.controls`).
    `scorer` names what told the values of the rows, where that is not exact. `primary` is the place of the measure
    among the primary ones (`evaluation.primary`); null for the others, whose changes are exploratory.
    """

    name: str
    n: int
    clusters: int
    rate: bool
    better: Better
    version: NotRequired[int]
    scorer: NotRequired[str]
    primary: NotRequired[int | None]
    before: NotRequired[IntervalRecord]
    previous: NotRequired[IntervalRecord]
    difference: dict[str, DifferenceRecord]
    controls: NotRequired[dict[str, float]]


def measurements(
    now: Mapping[str, Scores],
    before: Mapping[str, Scores] | None,
    previous: Mapping[str, Scores] | None,
    settings: Evaluation,
) -> list[Measurement]:
    """Compare each measure of a model with the models that it came from; see `correct` for the p-values."""
    rows = [
        measurement(
            scores,
            now.get(scores.metric.before) or (before or {}).get(name),
            now.get(scores.metric.previous) or (previous or {}).get(name),
            settings,
        )
        for name, scores in now.items()
    ]
    correct(rows, settings)
    return rows


def measurement(now: Scores, before: Scores | None, previous: Scores | None, settings: Evaluation) -> Measurement:
    """Compare one measure of a model with the models that it came from."""
    metric = now.metric
    size = (len(now.columns), metric.better, metric.rate, len(set(now.clusters)))
    row = row_of(now.name, interval(now, settings.confidence), *size)
    row["version"] = now.version
    if now.scorer:
        row["scorer"] = now.scorer
    if before is not None:
        row["before"] = as_record(interval(before, settings.confidence))
        row["difference"]["before"] = difference_record(now, before, settings)
    if previous is not None:
        row["previous"] = as_record(interval(previous, settings.confidence))
        row["difference"]["previous"] = difference_record(now, previous, settings)
    return row


def difference_record(now: Scores, then: Scores, settings: Evaluation) -> DifferenceRecord:
    """Return a paired difference; `correct` adds what depends on the other differences."""
    changed = difference(now, then, settings.confidence)
    margin = absolute_margin(settings.margin, then, settings.confidence)
    value, low, high = changed.interval
    record: DifferenceRecord = {
        "value": value,
        "low": finite(low),
        "high": finite(high),
        "error": finite(changed.error),
        "p": changed.p,
        "p_adjusted": None,
        "detectable": None,
        "margin": margin,
        "not_worse": not_worse(changed.interval, now.metric.better == "higher", margin),
    }
    if changed.table is not None:
        record["table"] = changed.table
    return record


def absolute_margin(margin: float, then: Scores, confidence: float) -> float:
    """Return a margin in the unit of a measure: of a rate it is, of any other measure it is a share of the value."""
    return margin if then.metric.rate else margin * abs(interval(then, confidence).value)


def correct(rows: Sequence[Measurement], settings: Evaluation) -> None:
    """Correct the p-values of all differences that may be called better or worse, and their detectable changes.

    These are the differences of primary measures with a direction. A stage that started from the base model has one
    difference under two names, which counts once.
    """
    rank(rows, settings.primary)
    pairs = [row["difference"] for row in rows if is_tested(row)]
    tests = [one for pair in pairs for name, one in pair.items() if name == "before" or one != pair.get("before")]
    adjusted = {id(one): p for one, p in zip(tests, holm([one["p"] for one in tests]), strict=True)}
    for row in rows:
        count = len(tests) if is_tested(row) else 1
        for name, one in row["difference"].items():
            if name != "before" and is_tested(row) and id(one) not in adjusted:
                one |= row["difference"]["before"]
                continue
            one["p_adjusted"] = adjusted.get(id(one))
            one["detectable"] = finite(smallest_seen(one, row["clusters"], settings.confidence, count))


def smallest_seen(one: DifferenceRecord, clusters: int, confidence: float, tests: int) -> float:
    """Return the smallest change that would be seen in 80 of 100 comparisons; infinite where none would be."""
    if "table" in one:
        return detectable_rate(one["table"], confidence, tests)
    return inf if one["error"] is None else detectable(one["error"], clusters, confidence, tests)


def is_tested(row: Measurement) -> bool:
    """Return whether changes of a measure may be called better or worse: it is primary and has a direction."""
    return row["better"] != "neither" and row.get("primary") is not None


def rank(rows: Sequence[Measurement], primary: Sequence[str]) -> None:
    """Set the place of each measure among the primary ones, None for the others.

    Where no primary measure with a direction was compared, all that were are primary, in their order.
    """
    compared = list(dict.fromkeys(row["name"] for row in rows if row["better"] != "neither" and row["difference"]))
    named = list(dict.fromkeys(primary))
    ranked = named if set(named) & set(compared) else [*named, *compared]
    places = {name: place for place, name in enumerate(ranked)}
    for row in rows:
        row["primary"] = places.get(row["name"])


def row_of(
    name: str, measured: Interval, n: int, better: Better, rate: bool = False, clusters: int | None = None
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


def as_record(interval: Interval) -> IntervalRecord:
    """Return an interval as JSON stores it."""
    return {"value": interval.value, "low": finite(interval.low), "high": finite(interval.high)}


def finite(value: float) -> float | None:
    """Return a number as JSON stores it: null where it is infinite."""
    return value if isfinite(value) else None


def interval(scores: Scores, confidence: float) -> Interval:
    """Compute a measure's value over all records, with its interval over clusters."""
    metric = scores.metric
    if metric.interval:
        return metric.interval(scores.columns, confidence, scores.clusters)
    if metric.rate:
        return rate_interval(scores.values, confidence, scores.clusters)
    measured = measure_interval(scores.columns, metric.of, confidence, scores.clusters)
    return bounded(measured, metric.bounds, len(set(scores.clusters)), confidence)


def difference(now: Scores, then: Scores, confidence: float) -> Difference:
    """Compute how much a measure changed between two models, record by record."""
    if now.ids != then.ids:
        raise ValueError(f"{now.name}: the two models were not measured on the same prompts")
    if now.metric.rate:
        return rate_difference(now.values, then.values, confidence, now.clusters)
    changed = measure_difference(now.columns, then.columns, now.metric.of, confidence, now.clusters)
    low, high = now.metric.bounds
    return changed._replace(interval=clip(changed.interval, (low - high, high - low)))


def bounded(measured: Interval, bounds: Bounds, clusters: int, confidence: float) -> Interval:
    """Return an interval within the bounds of its metric; one of no width is widened.

    Where all clusters agree, some with another value may have been missed: at most the share that Wilson's interval
    allows where none was seen.
    """
    if measured.low == measured.high and isfinite(bounds[1] - bounds[0]):
        missed = wilson(0, clusters, confidence).high
        low, high = (measured.value + missed * (bound - measured.value) for bound in bounds)
        return Interval(measured.value, low, high)
    return clip(measured, bounds)


def clip(measured: Interval, bounds: Bounds) -> Interval:
    """Return an interval without its parts beyond some bounds."""
    return measured._replace(low=max(measured.low, bounds[0]), high=min(measured.high, bounds[1]))
