"""What differences allow to say: corrected for their number, with the smallest change that could have been seen.

A run compares many measures, and of twenty that have not changed one looks changed by chance. Holm's correction keeps
the probability of any false statement below 1 - confidence. "Not worse" is said only where the interval excludes a loss
larger than a margin, never because a change was not seen. This module depends on no model, config or file.
"""

from collections.abc import Sequence
from math import ceil, inf, isfinite, sqrt
from statistics import NormalDist

import numpy as np

from alignlab.evaluation.statistics import Interval, quantile, student_quantile

POWER = 0.8  # the probability to see a change of the size of the minimum detectable effect
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
    """Return the smallest true change that is seen with a probability of 80%, by the standard error of a difference.

    `tests` is the size of the family that the change is corrected for. Infinite for a single cluster.
    """
    if clusters < 2 or not isfinite(error):
        return inf
    bound = student_quantile(clusters - 1, 1 - (1 - confidence) / 2 / tests)
    return (bound + NormalDist().inv_cdf(POWER)) * error


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
