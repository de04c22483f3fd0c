"""The Trainer's data loader in PPO: a pass over it is a rollout, and an item is a micro-batch."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypedDict

from alignlab.chat import Turn
from alignlab.training.ppo.experience import Experience


class Prompt(NamedTuple):
    """A prompt as conversation turns, which the reward reads, and as token ids, which the policy reads."""

    turns: Sequence[Turn]
    ids: list[int]


class MicroBatch(TypedDict):
    """Rows of a rollout whose loss a process computes at once."""

    experience: Experience
    rows: list[int]
    tokens: int  # of all completions in the minibatch, over all processes: what the loss is divided by
    step: int  # the optimizer step within the rollout


class RolloutLoader:
    """The Trainer's data loader: a pass over it is a rollout."""

    def __init__(self, rollout: Callable[[int], Iterator[MicroBatch]], length: int) -> None:
        self.rollout, self.length = rollout, length
        self.number = 0  # of the rollout that the next pass yields

    def set_epoch(self, epoch: int) -> None:
        """Choose the rollout; the Trainer calls this before each pass."""
        self.number = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[MicroBatch]:
        return self.rollout(self.number)
