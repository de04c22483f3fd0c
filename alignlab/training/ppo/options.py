"""What PPO's loop is told."""

from typing import NamedTuple

from alignlab.models.sampling import Sampling
from alignlab.training.ppo.experience import Settings


class Options(NamedTuple):
    """The settings of `conf/method/ppo.yaml` that the loop reads, and into how many pieces each process cuts a step."""

    batch_size: int
    num_rollouts: int
    num_ppo_epochs: int
    num_mini_batches: int
    pieces: int
    cliprange: float
    cliprange_value: float
    vf_coef: float
    entropy_coef: float
    standardize: bool
    missing_eos_penalty: float
    settings: Settings
    sampling: Sampling
    seed: int
    engine: str = "generate"
    offload: tuple[str, ...] = ()  # the roles that wait in main memory: reference, reward

    @property
    def steps(self) -> int:
        """Optimizer steps a rollout."""
        return self.num_ppo_epochs * self.num_mini_batches
