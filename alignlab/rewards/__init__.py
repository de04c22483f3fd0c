"""Rewards: from a conversation and an answer to a number.

Each kind of `conf/reward/` is a file of this package, and each keeps the one protocol of `alignlab.rewards.protocol`.
"""

from alignlab.rewards.model import RewardModel as RewardModel
from alignlab.rewards.model import load_reward_model as load_reward_model
from alignlab.rewards.protocol import Checked as Checked
from alignlab.rewards.protocol import Reward as Reward
