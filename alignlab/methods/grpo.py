"""Group-relative policy optimisation: PPO without a value function (Shao et al. 2024, arXiv 2402.03300).

It is PPO's loop with `advantage=group`: each completion is compared with the others of its prompt. RLOO (Ahmadian et
al. 2024, arXiv 2402.14740) is `advantage=rloo`. See `alignlab.methods.ppo`.
"""

from typing import Literal

from alignlab.methods import ppo
from alignlab.methods.ppo import GENERATES as GENERATES
from alignlab.methods.ppo import NEEDS as NEEDS
from alignlab.methods.ppo import VIEW as VIEW
from alignlab.methods.ppo import train as train

ROLES = ("policy", "reference", "reward")


class Config(ppo.Config):
    """Settings of `conf/method/grpo.yaml`."""

    advantage: Literal["group", "rloo"]
    value: Literal["none"]
