"""Confidence intervals for rates, for means and for paired differences.

A rate gets Wilson's interval, a mean the bootstrap's. Two models complete the same prompts, so a difference is taken
prompt by prompt: by the bootstrap for real values, and by Newcombe's method for 0/1 values, whose interval has a width
even where the two models never disagree. This module depends on no model, config or file.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from statistics import NormalDist, pstdev
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

CHUNK = 1 << 22  # row numbers drawn at once by the bootstrap: 32 MB


class Interval(NamedTuple):
    """A value and the ends of its confidence interval."""

    value: float
    low: float
    high: float


def wilson(successes: float, n: int, confidence: float) -> Interval:
    """Compute Wilson's score interval for a rate, without continuity correction.

    Wilson 1927; Newcombe 1998, Statistics in Medicine 17:857-872, method 3.
    """
    z2 = quantile(confidence) ** 2
    rate = successes / n
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = sqrt(z2) / (1 + z2 / n) * sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    low = centre - half if successes else 0.0  # exactly 0 and 1 at the ends, where rounding would leave 1e-18
    high = centre + half if successes < n else 1.0
    return Interval(rate, low, high)


def newcombe(both: int, first: int, second: int, neither: int, confidence: float) -> Interval:
    """Compute the interval for the difference of two paired rates, from the four counts of a paired table.

    `first` and `second` count the pairs in which only that one succeeds; the difference is first minus second.
    Newcombe 1998, Statistics in Medicine 17:2635-2650, method 10: two Wilson intervals, squared and added with the
    correlation of the pairs, which is corrected for continuity where it is positive.
    """
    n = both + first + second + neither
    p1, low1, high1 = wilson(both + first, n, confidence)
    p2, low2, high2 = wilson(both + second, n, confidence)
    phi = correlation(both, first, second, neither)
    below = (p1 - low1) ** 2 - 2 * phi * (p1 - low1) * (high2 - p2) + (high2 - p2) ** 2
    above = (high1 - p1) ** 2 - 2 * phi * (high1 - p1) * (p2 - low2) + (p2 - low2) ** 2
    return Interval(p1 - p2, p1 - p2 - sqrt(max(0.0, below)), p1 - p2 + sqrt(max(0.0, above)))


def correlation(both: int, first: int, second: int, neither: int) -> float:
    """Compute the correlation of a paired table, corrected by n/2 where it is positive (Newcombe 1998, method 10)."""
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    product = float(both * neither - first * second)
    if product > 0:
        product = max(0.0, product - (both + first + second + neither) / 2)
    return product / sqrt(margins) if margins else 0.0


def bootstrap_mean(
    values: "ArrayLike",
    resamples: int,
    confidence: float,
    seed: int,
    weights: "ArrayLike | None" = None,
    shown: "Callable[[Floats], Floats] | None" = None,
) -> Interval:
    """Compute the percentile bootstrap interval of a (weighted) mean over rows (Efron and Tibshirani 1993, chapter 13).

    `shown` maps a mean to the reported number: `np.exp` turns a mean negative log-likelihood into a perplexity.
    """
    rows = np.asarray(values, float)
    share = np.ones_like(rows) if weights is None else np.asarray(weights, float)
    show = shown or (lambda means: means)

    def measure(sums: "Floats") -> "Floats":
        return show(sums[..., 0] / sums[..., 1])

    return bootstrap(np.stack([rows * share, share], axis=1), measure, resamples, confidence, seed)


def paired_difference(
    now: "ArrayLike",
    then: "ArrayLike",
    resamples: int,
    confidence: float,
    seed: int,
    rate: bool = False,
    weights: "tuple[ArrayLike, ArrayLike] | None" = None,
    shown: "Callable[[Floats], Floats] | None" = None,
) -> Interval:
    """Compute the interval of `now` minus `then`, where row i of both belongs to the same prompt.

    Rates (0/1 values) use Newcombe's method; other values are resampled pair by pair. `weights` holds those of `now`
    and those of `then`.
    """
    new, old = np.asarray(now, float), np.asarray(then, float)
    if rate:
        a, b, c, d = (int(np.sum((new == x) & (old == y))) for x, y in ((1, 1), (1, 0), (0, 1), (0, 0)))
        if a + b + c + d != len(new):
            raise ValueError("a rate has other values than 0 and 1")
        return newcombe(a, b, c, d, confidence)
    ones = np.ones_like(new)
    new_share, old_share = (ones, ones) if weights is None else (np.asarray(w, float) for w in weights)
    show = shown or (lambda means: means)

    def measure(sums: "Floats") -> "Floats":
        return show(sums[..., 0] / sums[..., 1]) - show(sums[..., 2] / sums[..., 3])

    columns = np.stack([new * new_share, new_share, old * old_share, old_share], axis=1)
    return bootstrap(columns, measure, resamples, confidence, seed)


def bootstrap(
    columns: "Floats", measure: "Callable[[Floats], Floats]", resamples: int, confidence: float, seed: int
) -> Interval:
    """Compute the percentile interval of a function of column sums; columns [n, k], rows drawn with replacement."""
    generator = np.random.default_rng(seed)
    n = len(columns)
    at_once = max(1, CHUNK // n)
    drawn: list[Floats] = []
    for start in range(0, resamples, at_once):
        rows = generator.integers(0, n, size=(min(at_once, resamples - start), n))
        sums = np.stack([column[rows].sum(axis=1) for column in columns.T], axis=1)
        drawn.append(measure(sums))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    return Interval(float(measure(columns.sum(axis=0))), float(low), float(high))


def student(values: Sequence[float], confidence: float) -> Interval:
    """Compute Student's t interval of a mean over few values, such as seeds; it needs two values."""
    from scipy.special import stdtrit

    n = len(values)
    mean = float(np.mean(values))
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * float(np.std(values, ddof=1)) / sqrt(n)
    return Interval(mean, mean - half, mean + half)


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean of some values."""
    return pstdev(values) / sqrt(len(values))


def quantile(confidence: float) -> float:
    """Return the normal quantile that leaves (1 - confidence) / 2 on either side: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + confidence) / 2)
