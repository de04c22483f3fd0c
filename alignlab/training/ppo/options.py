"""The settings of PPO's loop."""

from typing import NamedTuple

from alignlab.models.sampling import Sampling
from alignlab.training.ppo.experience import AdvantageOptions


class Options(NamedTuple):
    """The settings of `conf/method/ppo.yaml` that the loop reads."""

    batch_size: int
    num_rollouts: int
    num_ppo_epochs: int
    num_mini_batches: int
    micro_batches: int  # of a minibatch, in each process
    cliprange: float
    cliprange_value: float
    vf_coef: float
    entropy_coef: float
    standardize: bool
    missing_eos_penalty: float
    advantage: AdvantageOptions
    sampling: Sampling
    seed: int
    value_learning_rate: float | None = None  # None: that of the policy
    importance_cap: float | None = None  # of the importance weights where another engine samples; None uses none
    rollout_batch_size: int | None = None  # completions that a process samples at once; None fits them into memory
    offload: tuple[str, ...] = ()  # roles that wait in main memory while they are not used: reference, reward

    @property
    def steps(self) -> int:
        """Return the optimizer steps of a rollout."""
        return self.num_ppo_epochs * self.num_mini_batches
