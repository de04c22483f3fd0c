"""Decide whether a candidate model may replace a baseline, by their scores on the same items.

A candidate is accepted only if every check passes. The objective has to be better: the interval of the paired
difference excludes 0. Every measure of a bound has to be non-inferior: the interval excludes a loss of more than the
margin. All have to pass, so that no correction for their number is needed: a candidate that violates one bound is
accepted with a probability of at most (1 - confidence) / 2, however many others there are (the intersection-union test,
Berger 1982, Technometrics 24:295-300). One with the baseline's scores is promoted with at most that probability, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Literal, NotRequired, TypedDict

from alignlab.config.evaluation import Evaluation
from alignlab.config.task import Bound
from alignlab.evaluation.decisions import FEWEST_CLUSTERS, clusters_needed, detectable
from alignlab.evaluation.metrics import Scores
from alignlab.evaluation.scores import IntervalRecord, absolute_margin, as_record, difference, interval

OBJECTIVE = "objective"  # as the part of a check; the other parts are the names of bounds

Outcome = Literal["passed", "undecided", "failed", "unmeasured"]


class Check(TypedDict):
    """One check of a candidate: `value` has to exclude what is beyond `allowed`.

    `kind` says what `value` is: the difference to the baseline (better: `allowed` is 0; not_worse: `allowed` is the
    margin), or the share of failures (limit). `needed` is the number of prompts (or clusters) that would decide it in
    80 of 100 cases if the value stayed as it is; null where that is decided, or where no number would do. `n` is the
    number of rows, `scorer` what told their values; empty where these are exact.
    """

    part: str
    measure: str
    kind: Literal["better", "not_worse", "limit"]
    outcome: Outcome
    value: IntervalRecord
    allowed: float
    higher_is_better: bool
    rate: bool
    clusters: int
    needed: int | None
    n: NotRequired[int]
    scorer: NotRequired[str]


class Decision(TypedDict):
    """Whether a candidate is accepted, and the checks: the objective first, then the bounds in their order."""

    accepted: bool
    checks: list[Check]


def decide(
    candidate: Mapping[str, Scores],
    baseline: Mapping[str, Scores],
    objective: Sequence[str],
    bounds: Mapping[str, Bound | None],
    settings: Evaluation,
) -> Decision:
    """Compare a candidate with a baseline by the objective and the bounds; scores are by the name of the measure."""
    measured = {name: scores for name, scores in candidate.items() if name in baseline}
    checks: list[Check] = []
    if objective:
        named = next((name for name in objective if name in measured), None)
        checks.append(
            check_better(measured[named], baseline[named], settings)
            if named
            else unmeasured(OBJECTIVE, "better", objective)
        )
    for part, bound in bounds.items():
        if bound is not None:
            names = [name for name in bound.measures if name in measured]
            checks += [
                check for name in names for check in check_bound(part, bound, measured[name], baseline[name], settings)
            ] or [unmeasured(part, "not_worse", bound.measures)]
    return {"accepted": all(check["outcome"] == "passed" for check in checks), "checks": checks}


def check_better(now: Scores, then: Scores, settings: Evaluation) -> Check:
    """Check that the objective is better: the interval of its difference excludes 0."""
    changed = difference(now, then, settings.confidence)
    gain = sign(now) * changed.interval.value
    low, high = sorted(sign(now) * end for end in changed.interval[1:])
    outcome = outcome_of(low > 0, high < 0, now)
    needed = prompts_needed(changed.error, gain, now, settings) if outcome == "undecided" and gain > 0 else None
    return check(OBJECTIVE, "better", outcome, now, as_record(changed.interval), 0.0, needed)


def check_bound(part: str, bound: Bound, now: Scores, then: Scores, settings: Evaluation) -> Iterator[Check]:
    """Check that a measure is not worse than the baseline's by more than the margin, and not beyond the limit."""
    changed = difference(now, then, settings.confidence)
    allowed = absolute_margin(bound.margin, then, settings.confidence)
    room = allowed + sign(now) * changed.interval.value  # to the margin; negative beyond it
    low, high = sorted(allowed + sign(now) * end for end in changed.interval[1:])
    outcome = outcome_of(low > 0, high < 0, now)
    needed = prompts_needed(changed.error, abs(room), now, settings) if outcome == "undecided" else None
    yield check(part, "not_worse", outcome, now, as_record(changed.interval), allowed, needed)
    if bound.limit is not None and now.metric.rate:
        yield check_limit(part, bound.limit, now, settings)


def check_limit(part: str, limit: float, now: Scores, settings: Evaluation) -> Check:
    """Check that the share of failures of a candidate stays below a limit, by the end of its interval."""
    measured = interval(now, settings.confidence)
    if now.metric.better == "higher":
        measured = measured._replace(value=1 - measured.value, low=1 - measured.high, high=1 - measured.low)
    outcome = outcome_of(measured.high <= limit, measured.low > limit, now)
    half, room = (measured.high - measured.low) / 2, abs(limit - measured.value)
    n = count(now)
    needed = clusters_needed(half, n, room) if outcome == "undecided" and room and isfinite(half) else None
    return check(part, "limit", outcome, now, as_record(measured), limit, needed)


def outcome_of(passed: bool, failed: bool, scores: Scores) -> Outcome:
    """Return the outcome of a check; too few prompts, or a measure without a direction, decide nothing."""
    if count(scores) < FEWEST_CLUSTERS or scores.metric.better == "neither":
        return "undecided"
    return "passed" if passed else "failed" if failed else "undecided"


def prompts_needed(error: float, change: float, scores: Scores, settings: Evaluation) -> int | None:
    """Return how many clusters would show a change of this size; None where no number would do."""
    n = count(scores)
    smallest = detectable(error, n, settings.confidence)
    if not change or not isfinite(smallest):
        return None
    return max(FEWEST_CLUSTERS, clusters_needed(smallest, n, change))


def check(
    part: str,
    kind: Literal["better", "not_worse", "limit"],
    outcome: Outcome,
    scores: Scores,
    value: IntervalRecord,
    allowed: float,
    needed: int | None,
) -> Check:
    """Return the record of a check."""
    return {
        "part": part,
        "measure": scores.name,
        "kind": kind,
        "outcome": outcome,
        "value": value,
        "allowed": allowed,
        "higher_is_better": scores.metric.better == "higher",
        "rate": scores.metric.rate,
        "clusters": count(scores),
        "needed": needed,
        "n": len(scores.columns),
        "scorer": scores.scorer,
    }


def unmeasured(part: str, kind: Literal["better", "not_worse"], names: Sequence[str]) -> Check:
    """Return the check of a part of which nothing was measured: it does not pass."""
    return {
        "part": part,
        "measure": ", ".join(names),
        "kind": kind,
        "outcome": "unmeasured",
        "value": {"value": 0.0, "low": None, "high": None},
        "allowed": 0.0,
        "higher_is_better": True,
        "rate": False,
        "clusters": 0,
        "needed": None,
    }


def sign(scores: Scores) -> int:
    """Return 1 for a measure of which more is better, else -1."""
    return 1 if scores.metric.better == "higher" else -1


def count(scores: Scores) -> int:
    """Return the number of independent rows: the prompts."""
    return len(set(scores.clusters))
