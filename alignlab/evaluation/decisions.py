"""What differences allow to say: corrected for their number, with the smallest change that could have been seen.

A run compares many measures, and of twenty that have not changed one looks changed by chance. Holm's correction keeps
the probability of any false statement below 1 - confidence. "Not worse" is said only where the interval excludes a loss
larger than a margin, never because a change was not seen. This module depends on no model, config or file.
"""

from collections.abc import Sequence
from math import ceil, inf, isfinite, sqrt
from statistics import NormalDist

import numpy as np

from alignlab.evaluation.statistics import Interval, Table, newcombe_at, quantile, student_quantile

POWER = 0.8  # the probability to see a change of the size of the minimum detectable effect
STEPS = 20  # of a fixed point, and of a bisection
FEWEST_CLUSTERS = 20  # a change on fewer prompts is never called better or worse


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the adjusted p-values of a family of tests, in their order (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [1.0] * len(p_values), 0.0
    for place, test in enumerate(order):
        largest = max(largest, min(1.0, p_values[test] * (len(order) - place)))
        adjusted[test] = largest
    return adjusted


def detectable(error: float, clusters: int, confidence: float, tests: int = 1) -> float:
    """Return the smallest true change of a mean that is seen with a probability of 80%, by its standard error.

    `tests` is the size of the family that the change is corrected for. Infinite for a single cluster.

    The test statistic of a change of d standard errors over n normal values has the mean d (1 + 3 / (4n - 5)) and the
    variance 1 + d^2 / (2n - 2) + 2 d^4 / (3 n^2): the spread of the values and their skewness, of which Hall's
    transformation makes use, are estimated. `error` is estimated as well, so that the second term counts twice.
    """
    if clusters < 2 or not isfinite(error):
        return inf
    n = max(clusters, FEWEST_CLUSTERS)  # fewer clusters get no verdict
    bound, reach = student_quantile(clusters - 1, 1 - (1 - confidence) / 2 / tests), NormalDist().inv_cdf(POWER)
    size = bound
    for _ in range(STEPS):
        spread = sqrt(1 + size**2 / (n - 1) + 2 * size**4 / (3 * n * n))
        size = (bound + reach * spread) / (1 + 3 / (4 * n - 5))
        if size > n:  # no change is seen as often as that
            return inf
    return size * error


def detectable_rate(table: Table, confidence: float, tests: int = 1) -> float:
    """Return the smallest true change of a rate that is seen with a probability of 80%, by the table of its pairs.

    It is a change from the earlier model's rate towards one half, beyond which there is more room. The lower fifth of
    the outcomes of such a change ends where Newcombe's interval begins to hold 0. Infinite where none is large enough.
    """
    both, first, second, _ = table
    n = sum(table)
    then = (both + second + 1) / (n + 2)  # one row of each value more: a rate of 0 would have no variance
    sign, room = (1, 1 - then) if then <= 0.5 else (-1, then)
    alike = likeness((both + first) / n, (both + second) / n, both / n)
    z, reach = (NormalDist().inv_cdf(share) for share in (1 - (1 - confidence) / 2 / tests, POWER))

    def is_seen(change: float) -> bool:
        _, gained, lost, _ = expected_table(then + sign * change, then, alike)
        # Of an outcome, and of this estimate; the weight of the latter was chosen by `benchmarks/intervals.py`.
        variance = (max(0.0, gained + lost - change**2) + change**2) / n
        least = change - reach * sqrt(variance)
        if least <= 0:
            return False
        a, b, c, d = expected_table(then + sign * least, then, alike)
        interval = newcombe_at((n * a, n * b, n * c, n * d), z)
        return not interval.low <= 0 <= interval.high

    if not is_seen(room):
        return inf
    low, high = 0.0, room
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_seen(middle) else (middle, high)
    return high


def likeness(first: float, second: float, both: float) -> float:
    """Return how alike two paired rates are: 0 where they are independent, 1 where one holds all of the other."""
    room = min(first, second) - first * second
    return max(0.0, (both - first * second) / room) if room > 0 else 0.0


def expected_table(first: float, second: float, alike: float) -> Table:
    """Return the shares of pairs of two rates that are as alike as that."""
    both = first * second + alike * (min(first, second) - first * second)
    return both, first - both, second - both, 1 - first - second + both


def clusters_needed(smallest: float, clusters: int, wanted: float) -> int:
    """Return how many clusters would show a change of `wanted`, where `clusters` show one of `smallest`."""
    return ceil(clusters * (smallest / wanted) ** 2)


def not_worse(difference: Interval, higher_is_better: bool, margin: float) -> bool:
    """Return whether the interval of a change excludes a loss of more than `margin` (non-inferiority)."""
    return difference.low > -margin if higher_is_better else difference.high < margin


def rogan_gladen(
    rate: tuple[float, int], sensitivity: tuple[float, int], specificity: tuple[float, int], confidence: float
) -> Interval:
    """Correct a rate for the errors of its scorer; each argument is a rate and the number of rows behind it.

    `sensitivity` and `specificity` are the scorer's, on rows with human labels. Rogan and Gladen 1978; the interval is
    that of Lang and Reiczigel 2014, Preventive Veterinary Medicine 113:13-22. Raises a `ValueError` where the scorer
    is no better than chance.
    """
    z = quantile(confidence)
    if sensitivity[0] + specificity[0] <= 1:
        raise ValueError("the scorer is no better than chance")
    value = (rate[0] + specificity[0] - 1) / (sensitivity[0] + specificity[0] - 1)
    n, of_true, of_false = rate[1] + z * z, sensitivity[1] + 2, specificity[1] + 2
    p = (rate[0] * rate[1] + z * z / 2) / n
    found = (sensitivity[0] * sensitivity[1] + 1) / of_true
    left = (specificity[0] * specificity[1] + 1) / of_false
    gain = max(found + left - 1, 1e-9)
    share = (p + left - 1) / gain
    shift = 2 * z * z * (share * found * (1 - found) / of_true - (1 - share) * left * (1 - left) / of_false)
    variances = (
        p * (1 - p) / n,
        share**2 * found * (1 - found) / of_true,
        (1 - share) ** 2 * left * (1 - left) / of_false,
    )
    half = z * sqrt(sum(variances)) / gain
    return Interval(*(min(1.0, max(0.0, end)) for end in (value, share + shift - half, share + shift + half)))
