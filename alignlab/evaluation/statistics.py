"""Confidence intervals and p-values for rates, means, ratios and their paired differences; rows come in clusters.

Rows of one cluster (several samples of one prompt, several pairs of one prompt) are not independent. Every interval is
therefore over clusters. Two kinds of measures are told apart:

- A rate of 0/1 rows gets Wilson's interval, and a paired difference of rates gets Newcombe's. Both have a width even
  where all rows agree. Clusters reduce the number of rows to the effective one (Korn and Graubard 1998).
- Any other measure is a function of column sums over rows: a mean, a weighted mean, a ratio, a correlation. Its
  influence values, one per cluster, have the measure as their mean (Efron 1982, the infinitesimal jackknife). That mean
  gets Student's interval, corrected for skewness by Hall's transformation (Hall 1992, "On the removal of skewness by
  transformation", JRSS B 54:221-228). It covers better than the bootstrap on few or skewed rows, and draws nothing at
  random: the same scores give the same interval. `benchmarks/intervals.py` measures the coverage.

This module depends on no model, config or file.
"""

from collections.abc import Callable, Sequence
from math import inf, sqrt
from statistics import NormalDist, pstdev
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    OfSums = Callable[[Floats], Floats]  # from column sums [..., k] to the measure [...]

Table = tuple[float, float, float, float]  # of a pair of rates: both succeed, only the first, only the second, neither
STEP = 1e-4  # of the numerical derivative of a measure by the weight of one cluster
ROUNDING = 1e-9  # a smaller standard deviation, relative to the mean, is rounding alone
LARGEST_Z = 40.0


class Interval(NamedTuple):
    """A value and the ends of its confidence interval; the ends are infinite where one cluster tells nothing."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A paired difference: its interval, the two-sided p-value of no difference, and its standard error.

    `table` counts the effective rows of a pair of rates.
    """

    interval: Interval
    p: float
    error: float
    table: Table | None = None


def rate_interval(values: "ArrayLike", confidence: float, clusters: Sequence[object] | None = None) -> Interval:
    """Compute Wilson's interval of a rate of 0/1 rows, on the effective number of rows."""
    rows = np.asarray(values, float)
    n = effective_rows(rows, clusters, confidence)
    rate = float(rows.mean())
    return wilson(rate * n, n, confidence)._replace(value=rate)


def rate_difference(
    now: "ArrayLike", then: "ArrayLike", confidence: float, clusters: Sequence[object] | None = None
) -> Difference:
    """Compute Newcombe's interval of a rate minus another one, where row i of both belongs to the same sample.

    Raises a `ValueError` where a row is neither 0 nor 1.
    """
    new, old = np.asarray(now, float), np.asarray(then, float)
    table = paired_table(new, old, 1.0)
    if sum(table) != len(new):
        raise ValueError("a rate has other values than 0 and 1")
    share = effective_rows(new - old, clusters, confidence) / len(new)
    scaled = paired_table(new, old, share)
    interval = newcombe(scaled, confidence)
    return Difference(interval, newcombe_p(scaled), (interval.high - interval.low) / 2 / quantile(confidence), scaled)


def paired_table(now: "Floats", then: "Floats", share: float) -> Table:
    """Count the rows of each kind, times a share."""
    both, first, second, neither = (
        share * float(np.sum((now == x) & (then == y))) for x, y in ((1, 1), (1, 0), (0, 1), (0, 0))
    )
    return both, first, second, neither


def measure_interval(
    columns: "Floats", of: "OfSums", confidence: float, clusters: Sequence[object] | None = None
) -> Interval:
    """Compute the interval of a function of column sums; columns are [rows, k]."""
    value = float(of(columns.sum(axis=0)))
    return skew_interval(influence(columns, of, clusters), confidence)._replace(value=value)


def measure_difference(
    now: "Floats", then: "Floats", of: "OfSums", confidence: float, clusters: Sequence[object] | None = None
) -> Difference:
    """Compute the interval of a function of column sums minus that of other columns of the same rows."""
    value = float(of(now.sum(axis=0)) - of(then.sum(axis=0)))
    values = influence(now, of, clusters) - influence(then, of, clusters)
    error = float(values.std(ddof=1)) / sqrt(len(values)) if len(values) > 1 else inf
    return Difference(skew_interval(values, confidence)._replace(value=value), skew_p(values), error)


def mean_interval(values: "ArrayLike", confidence: float, weights: "ArrayLike | None" = None) -> Interval:
    """Compute the interval of a (weighted) mean over independent rows."""
    return measure_interval(mean_columns(values, weights), mean_of, confidence)


def mean_difference(
    now: "ArrayLike", then: "ArrayLike", confidence: float, weights: "ArrayLike | None" = None
) -> Difference:
    """Compute the interval of a (weighted) mean minus that of other values of the same rows."""
    return measure_difference(mean_columns(now, weights), mean_columns(then, weights), mean_of, confidence)


def mean_columns(values: "ArrayLike", weights: "ArrayLike | None" = None) -> "Floats":  # [rows, 2]
    """Return the columns of which `mean_of` computes the mean: values times weights, and weights."""
    rows = np.asarray(values, float)
    share = np.ones_like(rows) if weights is None else np.asarray(weights, float)
    return np.stack([rows * share, share], axis=1)


def mean_of(sums: "Floats") -> "Floats":
    """Compute a mean from the sums of `mean_columns`."""
    mean: Floats = sums[..., 0] / sums[..., 1]
    return mean


def cluster_sums(columns: "Floats", clusters: Sequence[object] | None) -> "Floats":  # [clusters, k]
    """Sum the rows of each cluster; without clusters each row is one."""
    if clusters is None:
        return columns
    numbers = {name: number for number, name in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((len(numbers), columns.shape[1]))
    np.add.at(sums, [numbers[name] for name in clusters], columns)
    return sums


def influence(columns: "Floats", of: "OfSums", clusters: Sequence[object] | None = None) -> "Floats":  # [clusters]
    """Return the measure plus the effect of each cluster on it: the values whose mean is the measure.

    The effect is the derivative by the weight of the cluster, computed numerically.
    """
    sums = cluster_sums(columns, clusters)
    total = sums.sum(axis=0)
    value = of(total)
    return value + (of(total + STEP * (len(sums) * sums - total)) - value) / STEP


def skew_interval(values: "Floats", confidence: float) -> Interval:
    """Compute the interval of a mean over independent values: Student's t after Hall's transformation (1992)."""
    n = len(values)
    mean, spread, skew = moments(values)
    if n < 2:
        return Interval(mean, -inf, inf)
    bound = student_quantile(n - 1, (1 + confidence) / 2)
    low, high = (mean - spread * undo_hall(end, skew, n) for end in (bound, -bound))
    return Interval(mean, low, high)


def skew_p(values: "Floats") -> float:
    """Compute the two-sided p-value of a mean of 0; `skew_interval` holds 0 where it is larger than 1 - confidence."""
    from scipy.special import stdtr

    n = len(values)
    mean, spread, skew = moments(values)
    if n < 2 or (not mean and not spread):
        return 1.0
    if not spread:
        return 2.0 ** (1 - n)  # a sign test: every cluster has changed by the same
    x = mean / spread
    scaled = x if abs(skew) < ROUNDING else ((1 + skew * x / 3) ** 3 - 1) / skew
    return float(2 * stdtr(n - 1, -abs(sqrt(n) * (scaled + skew / (6 * n)))))


def moments(values: "Floats") -> tuple[float, float, float]:
    """Return the mean, the standard deviation and the skewness of some values."""
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    if spread <= ROUNDING * max(1.0, abs(mean)):
        return (mean if abs(mean) > ROUNDING else 0.0), 0.0, 0.0
    centred = values - mean
    return mean, spread, float((centred**3).mean() / (centred**2).mean() ** 1.5)


def undo_hall(quantile: float, skew: float, n: int) -> float:
    """Return the deviation of a mean, in standard deviations, that Hall's transformation maps to a quantile."""
    scaled = quantile / sqrt(n) - skew / (6 * n)
    return scaled if abs(skew) < ROUNDING else float(np.cbrt(1 + skew * scaled) - 1) * 3 / skew


def effective_rows(values: "Floats", clusters: Sequence[object] | None, confidence: float) -> float:
    """Return how many independent rows would give a mean the variance that it has over clusters.

    Rows that do not vary count once for each cluster. A few clusters count less, by Student's quantile
    (Korn and Graubard 1998, Survey Methodology 24:193-201).
    """
    n = len(values)
    if clusters is None or len(set(clusters)) == n:
        return float(n)
    centred = (values - values.mean())[:, None]
    sums = cluster_sums(centred, clusters)[:, 0]
    count = len(sums)
    if count < 2:
        return 1.0
    alone, together = float((centred**2).sum()), float((sums**2).sum()) * count / (count - 1)
    rows = float(count) if alone <= ROUNDING else min(float(n), n * alone / max(together, ROUNDING))
    return rows * (quantile(confidence) / student_quantile(count - 1, (1 + confidence) / 2)) ** 2


def wilson(successes: float, n: float, confidence: float) -> Interval:
    """Compute Wilson's score interval for a rate, without continuity correction.

    Wilson 1927; Newcombe 1998, Statistics in Medicine 17:857-872, method 3.
    """
    return wilson_at(successes, n, quantile(confidence))


def wilson_at(successes: float, n: float, z: float) -> Interval:
    """Compute Wilson's interval that ends `z` standard errors from the rate."""
    z2 = z * z
    rate = successes / n
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * sqrt(max(0.0, rate * (1 - rate)) / n + z2 / (4 * n * n))
    low = centre - half if successes else 0.0  # exactly 0 and 1 at the ends, where rounding would leave 1e-18
    high = centre + half if successes < n else 1.0
    return Interval(rate, low, high)


def newcombe(table: Table, confidence: float) -> Interval:
    """Compute the interval of the first rate of a pair minus the second.

    Newcombe 1998, Statistics in Medicine 17:2635-2650, method 10: two Wilson intervals, squared and added with the
    correlation of the pairs, which is corrected for continuity where it is positive.
    """
    return newcombe_at(table, quantile(confidence))


def newcombe_at(table: Table, z: float) -> Interval:
    """Compute Newcombe's interval of two Wilson intervals that end `z` standard errors from their rates."""
    both, first, second, _ = table
    n = sum(table)
    p1, low1, high1 = wilson_at(both + first, n, z)
    p2, low2, high2 = wilson_at(both + second, n, z)
    phi = correlation(table)
    below = (p1 - low1) ** 2 - 2 * phi * (p1 - low1) * (high2 - p2) + (high2 - p2) ** 2
    above = (high1 - p1) ** 2 - 2 * phi * (high1 - p1) * (p2 - low2) + (p2 - low2) ** 2
    return Interval(p1 - p2, p1 - p2 - sqrt(max(0.0, below)), p1 - p2 + sqrt(max(0.0, above)))


def newcombe_p(table: Table) -> float:
    """Return the two-sided p-value of two equal paired rates: that of the widest interval without 0, by bisection."""
    value = newcombe_at(table, 0.0).value
    if not value:
        return 1.0
    low, high = 0.0, LARGEST_Z
    for _ in range(40):
        middle = (low + high) / 2
        interval = newcombe_at(table, middle)
        low, high = (low, middle) if interval.low <= 0 <= interval.high else (middle, high)
    return 2 * NormalDist().cdf(-low)


def correlation(table: Table) -> float:
    """Compute the correlation of a paired table, corrected by n/2 where it is positive (Newcombe 1998, method 10)."""
    both, first, second, neither = table
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    product = both * neither - first * second
    if product > 0:
        product = max(0.0, product - sum(table) / 2)
    return product / sqrt(margins) if margins else 0.0


def student(values: Sequence[float], confidence: float) -> Interval:
    """Compute Student's t interval of a mean over few values, such as seeds; it needs two values."""
    n = len(values)
    mean = float(np.mean(values))
    half = student_quantile(n - 1, (1 + confidence) / 2) * float(np.std(values, ddof=1)) / sqrt(n)
    return Interval(mean, mean - half, mean + half)


def student_quantile(freedom: int, probability: float) -> float:
    """Return the quantile of Student's distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of the mean of some values."""
    return pstdev(values) / sqrt(len(values))


def quantile(confidence: float) -> float:
    """Return the normal quantile that leaves (1 - confidence) / 2 on either side: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + confidence) / 2)
