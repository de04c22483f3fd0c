"""Constitutional AI, the preference phase as in the paper: PPO on a reward model of AI labels (arXiv 2212.08073).

`method=cai method.then=ppo` is the same. See `alignlab.methods.ppo` for the loop and `cai_rm` for the reward model.
"""

from alignlab.methods import ppo
from alignlab.methods.ppo import GENERATES as GENERATES
from alignlab.methods.ppo import ROLES as ROLES
from alignlab.methods.ppo import VIEW as VIEW
from alignlab.methods.ppo import train as train

NEEDS = {"policy": "cai_sft", "reward_model": "cai_rm"}


class Config(ppo.Config):
    """Settings of `conf/method/cai_ppo.yaml`."""
