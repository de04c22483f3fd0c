"""The mean and the standard deviation of all values seen so far, in one pass and resumable."""

from collections.abc import Mapping, Sequence
from math import sqrt


class RunningStats:
    """Count, mean and sum of squared deviations (Chan, Golub and LeVeque 1979, eq. 2.1), as exact as two passes."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0

    def update(self, values: Sequence[float]) -> None:
        """Add values."""
        if not values:
            return
        count, mean = len(values), sum(values) / len(values)
        both, gap = self.count + count, mean - self.mean
        self.squares += sum((value - mean) ** 2 for value in values) + gap**2 * self.count * count / both
        self.mean += gap * count / both
        self.count = both

    @property
    def deviation(self) -> float:
        """Return the standard deviation of the values as a whole population."""
        return sqrt(self.squares / self.count) if self.count else 0.0

    @property
    def scale(self) -> float:
        """Return what values are divided by: the deviation, at least a thousandth of the mean; 1 where that is near 0.

        So rounding errors of equal values are not scaled up, nor are the first values that differ from a constant.
        """
        scale = max(self.deviation, abs(self.mean) / 1000)
        return scale if scale > 1e-6 else 1.0

    def normalized(self, values: Sequence[float]) -> list[float]:
        """Subtract the mean from values and divide them by the deviation."""
        return [(value - self.mean) / self.scale for value in values]

    def state_dict(self) -> dict[str, float]:
        """Return the count, the mean and the sum of squares."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Resume from a state that `state_dict` returned."""
        self.count, self.mean, self.squares = int(state["count"]), float(state["mean"]), float(state["squares"])
