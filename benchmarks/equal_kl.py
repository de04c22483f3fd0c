"""Curves of score over KL to the reference, read at KLs that all runs have reached."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

SMOOTH = 5  # updates whose mean is a point
POINTS = 10  # values of the KL at which curves are read
T = {4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}  # Student's 97.5% quantiles


class Curve(NamedTuple):
    """A run's smoothed scores over its KL to the reference, in nats a completion."""

    kl: list[float]
    score: list[float]


class Difference(NamedTuple):
    """The difference of two means with its 95% interval."""

    value: float
    low: float
    high: float


def curve(rows: Sequence[dict[str, float]], smooth: int = SMOOTH) -> Curve:
    """Return the means over windows of updates, those where the KL is larger than ever before."""
    found = Curve([], [])
    for start in range(len(rows) - smooth + 1):
        window = rows[start : start + smooth]
        kl, score = (statistics.fmean(row[name] for row in window) for name in ("kl", "score"))
        if not found.kl or kl > found.kl[-1]:
            found.kl.append(kl)
            found.score.append(score)
    return found


def at(one: Curve, kl: float) -> float:
    """Return a curve's score at a KL, by linear interpolation; outside the curve that of its nearest end."""
    if kl <= one.kl[0]:
        return one.score[0]
    for place in range(1, len(one.kl)):
        if kl <= one.kl[place]:
            share = (kl - one.kl[place - 1]) / (one.kl[place] - one.kl[place - 1])
            return one.score[place - 1] + share * (one.score[place] - one.score[place - 1])
    return one.score[-1]


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Return the mean of ours less the mean of theirs, with Welch's interval."""
    value = statistics.fmean(ours) - statistics.fmean(theirs)
    parts = [statistics.variance(one) / len(one) for one in (ours, theirs)]
    whole = sum(parts)
    if not whole:
        return Difference(value, value, value)
    freedom = whole**2 / sum(part**2 / (len(one) - 1) for part, one in zip(parts, (ours, theirs), strict=True))
    wide = T[max(4, min(8, math.floor(freedom)))] * math.sqrt(whole)
    return Difference(value, value - wide, value + wide)


def common(curves: dict[str, list[Curve]]) -> list[float]:
    """Return values of the KL that every run has passed, evenly spaced."""
    runs = [one for side in curves.values() for one in side]
    low, high = max(one.kl[0] for one in runs), min(one.kl[-1] for one in runs)
    return [low + (high - low) * place / (POINTS - 1) for place in range(POINTS)]
