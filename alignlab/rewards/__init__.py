"""Rewards: from a conversation and a completion to a score.

Each kind of `conf/reward/` is a module of this package with a function `load(settings, context)`, which returns a
reward as `alignlab.rewards.protocol` defines it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from alignlab.config import extensions
from alignlab.config.dataset import DataSet
from alignlab.config.hardware import Hardware
from alignlab.config.reward import RewardSettings
from alignlab.rewards.protocol import Checked as Checked
from alignlab.rewards.protocol import Context as Context
from alignlab.rewards.protocol import Reward as Reward
from alignlab.rewards.protocol import Scored as Scored
from alignlab.rewards.protocol import parts_of
from alignlab.rewards.reward_model import RewardModel as RewardModel
from alignlab.rewards.reward_model import load_reward_model as load_reward_model


def load_reward(
    settings: RewardSettings,
    inputs: Mapping[str, Path],
    hardware: Hardware,
    place: str = "reward",
    dataset: DataSet | None = None,
) -> Checked:
    """Load the reward of a config; see `Context` for the arguments."""
    return load(settings, Context(inputs, hardware, place, dataset))


def load(settings: RewardSettings, context: Context) -> Checked:
    """Load a reward by the module of its kind."""
    module: Any = extensions.load("rewards", settings.kind)
    return Checked(module.load(settings, context))


def reward_models(reward: Reward) -> Iterator[RewardModel]:
    """Yield the reward models that a reward is made of, at any depth, without those of its costs."""
    inner = reward.reward if isinstance(reward, Checked) else reward
    if isinstance(inner, RewardModel):
        yield inner
    costs = getattr(inner, "costs", ())
    for name, part in parts_of(inner).items():
        if name not in costs:
            yield from reward_models(part)
