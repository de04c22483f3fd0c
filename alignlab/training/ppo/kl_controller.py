"""The weight of the KL penalty."""


class KLController:
    """The weight of the KL penalty: fixed, or adapted to reach a target (Ziegler et al. 2019, section 2.2)."""

    def __init__(self, value: float, target: float | None, horizon: int) -> None:
        self.value, self.target, self.horizon = value, target, horizon

    def update(self, kl: float, episodes: int) -> None:
        """Adapt the weight after so many episodes; `kl` is in nats a completion."""
        if self.target is not None:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.value *= 1 + error * episodes / self.horizon
