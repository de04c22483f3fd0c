"""Find the models that a config names by a path or a hub id.

A starting model is prepared first (chat template, padding). A model that only scores (a reward model, a classifier) is
used as published, with its own tokenizer and template.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignlab.config import extensions
from alignlab.config.evaluation import Toxicity, WinRate
from alignlab.config.method_protocol import load_method
from alignlab.config.model import PretrainedModel
from alignlab.config.reward import singles
from alignlab.config.schema import Config
from alignlab.config.settings import path_in_home
from alignlab.errors import mistake
from alignlab.models.references import (
    CLASSIFIES,
    POCKET,
    SCORES,
    check_generates,
    check_scores,
    classifier_labels,
    find_model,
    hub_model,
    policy_to_prepare,
    scorer_source,
)
from alignlab.runtime.source_hash import hash_with_imports

REWARD = "reward_model"  # the need of a method that takes the config's reward


def pretrained_models(config: Config) -> Iterator[PretrainedModel]:
    """Yield the pretrained starting models: the base model, and those that methods name and that are not ready."""
    if config.model.pretrained:
        yield config.model.pretrained
    for place, name in (*named_policies(config), *asked_models(config)):
        if model := policy_to_prepare(config, place, name):
            yield model


def published_models(config: Config) -> Iterator[PretrainedModel]:
    """Yield the models on the hub that only score."""
    for place, name in named_scorers(config):
        if name != POCKET and not find_model(place, name).exists():
            yield hub_model(config, name)


def check_models(config: Config) -> None:
    """Raise a `Mistake` where a setting names a model that does not exist or is of the wrong kind; loads nothing."""
    for place, name in (*named_policies(config), *asked_models(config), *named_scorers(config)):
        if name != POCKET:
            find_model(place, name)
    for place, name in (*named_policies(config), *asked_models(config)):
        check_generates(place, find_model(place, name))
    if model := config.model.pretrained:
        check_generates("model.path", path_in_home(Path(model.path)))
    check_scorers(config, fetched=False)
    name, trains = config.method.name, config.task.name == "train"
    if trains and config.model.is_encoder_decoder and not load_method(name).encoder_decoders:
        raise mistake("method", f"{name} does not train encoder-decoders", "use method=sft or method=rm")


def check_scorers(config: Config, fetched: bool) -> None:
    """Raise a `Mistake` where a model that scores has no head for it, or a classifier lacks its label.

    A model of the hub is checked after its download (`fetched`).
    """
    rewards = {f"{place}.path": one for place, one in singles(config.reward) if one.model_path}
    for place, name in named_scorers(config):
        folder = scorer_folder(config, place, name, fetched)
        reward = rewards.get(place)
        scorer = (
            reward.scorer
            if reward
            else "classifier"
            if place.startswith(("measure.", "evaluation.refusals"))
            else "reward_model"
        )
        if folder and scorer:
            check_scores(place, folder, CLASSIFIES if scorer == "classifier" else SCORES)
        if folder and reward and (label := reward.required_label):
            labels = classifier_labels(folder)
            if labels and label not in labels:
                where = f"{place.removesuffix('path')}label"
                raise mistake(where, f"{name} has no {label!r}", f"it has {', '.join(labels)}")


def scorer_folder(config: Config, place: str, name: str, fetched: bool) -> Path | None:
    """Return the folder of a model that scores; None for one that is still to be downloaded or trained."""
    folder = Path() if name == POCKET else find_model(place, name)
    if fetched and (name == POCKET or not folder.exists()):
        return scorer_source(config, place, name).path
    return None if name == POCKET or not folder.exists() else folder


def named_policies(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the settings of methods that name a starting model, and its path or hub id."""
    for place, settings in methods(config):
        for need in dict.fromkeys(("policy", *load_method(settings.name).needs)):
            if need != REWARD and (name := getattr(settings, need)) not in {"auto", "base"}:
                yield f"{place}.{need}", name


def asked_models(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the settings of measurements that name a language model: judges and baselines, and its path or hub id."""
    refusals = config.evaluation.refusals
    if refusals.judge_model and "judge" in refusals.scorers and not refusals.server.url:
        yield "evaluation.refusals.judge_model", refusals.judge_model
    if isinstance(compared := config.measure.get("win_rate"), WinRate):
        if compared.baseline != "references":
            yield "measure.win_rate.baseline", compared.baseline
        if compared.judge.needs_model and compared.judge_model:
            yield "measure.win_rate.judge_model", compared.judge_model


def named_scorers(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the settings that name a model which only scores, and its path or hub id."""
    if config.evaluation.reward_model not in {None, "auto"}:
        yield "evaluation.reward_model", config.evaluation.reward_model
    for name, measure in config.measure.items():
        if isinstance(measure, Toxicity) and measure.model:
            yield f"measure.{name}.model", measure.model
    if (refusals := config.evaluation.refusals).classifier and "classifier" in refusals.scorers:
        yield "evaluation.refusals.classifier", refusals.classifier
    trained = [(place, settings) for place, settings in methods(config) if REWARD in load_method(settings.name).needs]
    for place, settings in trained:
        if uses_reward_stage(config) and (name := getattr(settings, REWARD)) != "auto":
            yield f"{place}.{REWARD}", name
    if trained:
        yield from ((f"{place}.path", name) for place, name in named_rewards(config))


def methods(config: Config) -> Iterator[tuple[str, Any]]:
    """Yield the settings of the method and of the stages that it may need, with their places."""
    yield "method", config.method
    yield from ((f"stages.{name}", settings) for name, settings in config.stages.items())


def uses_reward_stage(config: Config) -> bool:
    """Return whether the reward reads the method's reward model: the rm stage, or what method.reward_model names."""
    return any(one.model_path == "auto" for _, one in singles(config.reward))


def named_rewards(config: Config) -> list[tuple[str, str]]:
    """Return the rewards that name a model, each by its place, and the paths or hub ids that they name."""
    paths = ((place, one.model_path) for place, one in singles(config.reward))
    return [(place, path) for place, path in paths if path and path != "auto"]


def judge_hash(settings: Any) -> str | None:
    """Return the hash of the code of a method's judge; None for a method without one."""
    judge = getattr(settings, "judge", None)
    return hash_with_imports(extensions.name_of("judges", judge.kind)) if judge else None
