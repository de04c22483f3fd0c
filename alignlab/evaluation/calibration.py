"""The calibration error of probabilities, without the bias that a plain estimate has on finite data.

Even a perfectly calibrated model has gaps between confidence and accuracy in bins of a few rows, so the usual expected
calibration error (Guo et al. 2017) is positive for it. Each squared gap is therefore reduced by its own variance
(Kumar, Liang and Ma 2019, "Verified uncertainty calibration", section 4). Bins hold equally many rows.
"""

from collections.abc import Sequence
from math import inf, sqrt
from typing import TYPE_CHECKING

import numpy as np

from alignlab.evaluation.statistics import Interval, cluster_sums, quantile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BINS = 10
FEWEST_PER_BIN = 10  # rows; fewer rows have fewer bins


def calibration_error(
    probability: "Floats", right: "Floats", confidence: float, clusters: Sequence[object] | None = None
) -> Interval:
    """Compute the root-mean-square gap between probability and frequency; both [n], `right` is 0, 0.5 or 1.

    The value and its lower end are 0 where the gaps are no larger than chance makes them. One cluster has no interval.
    """
    n = len(probability)
    which = bins(probability)
    members = np.eye(which.max() + 1)[which]  # [n, bins]
    shares = members.mean(axis=0)
    gaps = ((probability - right)[:, None] * members).sum(axis=0) / (n * shares)
    residuals = cluster_sums((probability - right - gaps[which])[:, None] * members, clusters)
    present = (cluster_sums(members, clusters) > 0).sum(axis=0)  # clusters in each bin
    few = present / np.maximum(present - 1, 1)
    variances = few * (residuals**2).sum(axis=0) / (n * shares) ** 2
    squared = float((shares * (gaps**2 - variances)).sum())
    signal = np.maximum(gaps**2 - variances, 0)
    error = sqrt(float((shares**2 * (4 * signal * variances + 2 * variances**2)).sum()))
    if len(residuals) < 2:
        return Interval(sqrt(max(0.0, squared)), -inf, inf)
    half = quantile(confidence) * error
    return Interval(*(sqrt(max(0.0, end)) for end in (squared, squared - half, squared + half)))


def bins(probability: "Floats") -> "NDArray[np.int64]":
    """Return the number of each row's bin, [n], lowest probability first; equal probabilities share one."""
    count = max(1, min(BINS, len(probability) // FEWEST_PER_BIN))
    edges = np.unique(np.quantile(probability, np.arange(1, count) / count)) if count > 1 else np.array([])
    numbers = np.searchsorted(edges, probability, side="right")
    return np.unique(numbers, return_inverse=True)[1]
