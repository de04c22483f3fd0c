"""Rewards: from a conversation and an answer to a number.

Each kind of `conf/reward/` is a file of this package, and each keeps the one protocol of `alignlab.rewards.protocol`.
`load_reward` makes the reward that a config describes.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import assert_never

from alignlab.config.dataset import DataSet
from alignlab.config.hardware import Hardware
from alignlab.config.reward import (
    AnyReward,
    ClassifierReward,
    EnsembleReward,
    FunctionReward,
    JudgeReward,
    MixtureReward,
    ModelReward,
    One,
    UrlReward,
)
from alignlab.errors import failure
from alignlab.rewards.protocol import Checked as Checked
from alignlab.rewards.protocol import Reward as Reward
from alignlab.rewards.reward_model import RewardModel as RewardModel
from alignlab.rewards.reward_model import load_reward_model as load_reward_model


def load_reward(
    reward: AnyReward,
    inputs: Mapping[str, Path],
    hardware: Hardware,
    place: str = "reward",
    dataset: DataSet | None = None,
) -> Checked:
    """Make the reward of a config, ready to score.

    `inputs` holds the folders of models: `reward_model` where a path is auto, else the one at the reward's own place.
    `dataset` is where a function that compares with reference answers finds them.
    """
    name = name_of(reward, place)
    if isinstance(reward, EnsembleReward):
        members = {
            own: load_reward(part, inputs, hardware, f"{place}.members.{own}", dataset)
            for own, part in reward.members.items()
        }
        from alignlab.rewards.mixture import Ensemble

        return Checked(Ensemble(name, reward, members))
    if isinstance(reward, MixtureReward):
        parts = {
            own: load_reward(part.reward, inputs, hardware, f"{place}.parts.{own}.reward", dataset)
            for own, part in reward.parts.items()
        }
        from alignlab.rewards.mixture import Mixture

        return Checked(Mixture(name, reward, parts))
    return Checked(load_single(reward, name, inputs, hardware, place, dataset))


def load_single(
    reward: One,
    name: str,
    inputs: Mapping[str, Path],
    hardware: Hardware,
    place: str,
    dataset: DataSet | None,
) -> Reward:
    """Make a reward that is not made of others."""
    match reward:
        case FunctionReward():
            from alignlab.rewards.function import load_function

            return load_function(reward.function, name, dataset)
        case UrlReward():
            from alignlab.rewards.http_server import Server

            return Server(name, reward)
        case JudgeReward():
            from alignlab.rewards.chat_judge import Marker

            return Marker(name, reward)
        case ClassifierReward():
            from alignlab.rewards.classifier import load_classifier

            return load_classifier(reward, folder(reward.path, inputs, place), hardware, name)
        case ModelReward():
            return load_reward_model(folder(reward.path, inputs, place), hardware)._replace(name=name)
        case _:
            assert_never(reward)


def reward_models(reward: Reward) -> Iterator[RewardModel]:
    """Find the reward models that a reward is made of."""
    if isinstance(reward, RewardModel):
        yield reward
    inner = [reward.reward] if isinstance(reward, Checked) else []
    for part in (*inner, *getattr(reward, "members", {}).values(), *getattr(reward, "parts", {}).values()):
        yield from reward_models(part)


def folder(path: str, inputs: Mapping[str, Path], place: str) -> Path:
    """The folder of the model that a reward names; a folder that is no input of the stage is taken as it is."""
    if path == "auto" and "reward_model" not in inputs:
        raise failure(f"{place}.path", "auto is the rm stage, and this run has none", "give a reward model's folder")
    return inputs["reward_model"] if path == "auto" else inputs.get(place, Path(path).expanduser())


def name_of(reward: AnyReward, place: str) -> str:
    """What a reward is called: its own name in an ensemble or a mixture, else its kind."""
    names = place.removesuffix(".reward").split(".")
    return names[-1] if len(names) > 1 else reward.kind
