"""The weight of a constraint: a PID controller of its Lagrange multiplier (Stooke et al. 2020, algorithm 2).

Plain gradient ascent on the multiplier is integral control: the weight rises until the cost is below its bound,
overshoots, and swings around it. The proportional term damps that. The derivative term reacts to a cost that rises.
"""

from typing import NamedTuple


class Gains(NamedTuple):
    """How a weight reacts to an excess of one, and the largest weight.

    proportional: added to the weight for the excess of this rollout
    integral: added to the weight for good, each rollout
    derivative: added to the weight for the rise of the cost since the rollout before
    largest: the limit of the weight and of its integral, so that a bound out of reach winds nothing up
    """

    proportional: float
    integral: float
    derivative: float
    largest: float


class Multiplier(NamedTuple):
    """The state of one constraint's controller: its weight, the integral part of it, and the cost that it last saw."""

    weight: float
    integral: float
    cost: float | None = None

    def updated(self, cost: float, bound: float, gains: Gains) -> "Multiplier":
        """Return the state after a rollout of this mean cost."""
        excess = cost - bound
        rise = 0.0 if self.cost is None else max(0.0, cost - self.cost)
        integral = within(self.integral + gains.integral * excess, gains.largest)
        weight = within(integral + gains.proportional * excess + gains.derivative * rise, gains.largest)
        return Multiplier(weight, integral, cost)


def within(value: float, largest: float) -> float:
    """Return a value between 0 and the largest."""
    return max(0.0, min(largest, value))


def calibrated(cost: float, floor: float, ceiling: float) -> float:
    """Return the true rate behind a rate that a noisy reader reports (Rogan and Gladen 1978, eq. 1).

    floor: what it reports where there is no harm; ceiling: where all is harm. Not clipped, so that means stay means.
    """
    return (cost - floor) / (ceiling - floor)
