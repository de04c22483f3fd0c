"""The models that a config names, by a path or a hub id: where each lies, and what it is known by.

A model to start from is made ready first (template, padding). One that only scores (a reward model, a classifier) is
taken as it was published: its tokenizer and its template are its own.
"""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from alignlab import dotted
from alignlab.config import Config, PretrainedModel
from alignlab.errors import mistake
from alignlab.files import digest_files
from alignlab.reward_settings import ClassifierReward, FunctionReward, ModelReward, singles

POCKET = "pocket"  # the path of pocket's own classifier, which is made on first use
REWARD = "reward_model"  # the need of a method that takes the config's reward
NOT_IN_MARK = {
    "timeout",
    "retries",
    "backoff",
    "batch_size",
    "key_env",
    "longest_wait",
    "concurrency",
}  # how a server is asked changes no score


class Source(NamedTuple):
    """Where a stage takes a model from: the base model, another stage, or a path or hub id as given."""

    name: str
    path: Path
    fingerprint: str


def method_module(name: str) -> Any:
    """The module of a method: `VIEW`, `NEEDS`, `Config` and `train`."""
    return import_module(f"alignlab.methods.{name}")


def given_model(config: Config, place: str, given: str) -> Source:
    """A model to start from, named by its path, known by its content, or by its hub id, known by its commit."""
    path = find_model(place, given)
    if path.exists():
        return Source(given, path, digest_files([path]))
    from alignlab.pretrained import base_folder

    folder = base_folder(hub_model(config, given))
    return Source(given, folder, folder.name)


def given_reward(config: Config, place: str, given: str) -> Source:
    """A model that scores, named by its path, known by its content, or by its hub id, known by its commit."""
    if given == POCKET:
        from alignlab.pocket import detector

        return Source(given, detector.folder(), detector.folder().name)
    path = find_model(place, given)
    if path.exists():
        return Source(given, path, digest_files([path]))
    from alignlab.pretrained import published_folder

    folder = published_folder(hub_model(config, given))
    return Source(given, folder, folder.name)


def hub_model(config: Config, given: str) -> PretrainedModel:
    """A model that a setting names by its hub id; it is read as the chain's base is."""
    base = config.model if isinstance(config.model, PretrainedModel) else None
    return PretrainedModel(
        kind="pretrained",
        path=given,
        revision="main",
        attn_implementation=base.attn_implementation if base else None,
        chat_template=base.chat_template if base else None,
    )


def pretrained_models(config: Config) -> Iterator[PretrainedModel]:
    """The models to start from that others have trained: the chain's base, and hub ids elsewhere."""
    if isinstance(config.model, PretrainedModel):
        yield config.model
    for place, given in named_policies(config):
        if not find_model(place, given).exists():
            yield hub_model(config, given)


def published_models(config: Config) -> Iterator[PretrainedModel]:
    """The models on the hub that only score."""
    for place, given in named_scorers(config):
        if given != POCKET and not find_model(place, given).exists():
            yield hub_model(config, given)


def find_model(place: str, given: str) -> Path:
    """The folder of a model (or of the stage that holds it), or a hub id as it is; `Mistake` where it is neither."""
    path = Path(given).expanduser()
    for folder in (path / "model", path):
        if (folder / "config.json").exists():
            return folder.absolute()
    if path.exists():
        raise mistake(place, f"{given} holds no model", "give a folder with config.json in it, or auto, or base")
    if given.count("/") != 1 or path.parent.exists():
        raise mistake(place, f"{given} is not there", "give a model's folder, a hub id (owner/name), auto or base")
    return path


def check_models(config: Config) -> None:
    """Raise a `Mistake` where a setting names a model that is not there or does not fit; costs nothing."""
    for place, given in (*named_policies(config), *named_scorers(config)):
        if given != POCKET:
            find_model(place, given)
    for place, given in named_policies(config):
        check_speaks(place, find_model(place, given))
    if isinstance(config.model, PretrainedModel):
        check_speaks("model.path", Path(config.model.path).expanduser())
    check_labels(config, fetched=False)
    name, trains = config.method.name, config.task.name == "train"
    if trains and encoder_decoder(config) and not getattr(method_module(name), "ENCODER_DECODERS", True):
        raise mistake("method", f"{name} does not train encoder-decoders", "use method=sft or method=rm")


SPEAKS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # how transformers names what can generate


def check_speaks(place: str, folder: Path) -> None:
    """Raise a `Mistake` where a model's own settings say that it has no head to generate with."""
    file = folder / "config.json"
    kinds = json.loads(file.read_text(encoding="utf-8")).get("architectures") if file.exists() else None
    if kinds and not any(kind.endswith(SPEAKS) for kind in kinds):
        raise mistake(place, f"{folder} is a {kinds[0]}, which generates nothing", "give a language model's folder")


def check_labels(config: Config, fetched: bool) -> None:
    """Raise a `Mistake` where a classifier lacks its label; one of the hub is looked at once it is fetched."""
    used = {place for place, _ in named_scorers(config)}
    for place, one in singles(config.reward):
        if isinstance(one, ClassifierReward) and f"{place}.path" in used:
            folder = Path() if one.path == POCKET else find_model(f"{place}.path", one.path)
            if fetched and (one.path == POCKET or not folder.exists()):
                folder = given_reward(config, f"{place}.path", one.path).path
            labels = labels_in(folder)
            if labels and one.label not in labels:
                raise mistake(f"{place}.label", f"{one.path} has no {one.label!r}", f"it has {', '.join(labels)}")


def labels_in(folder: Path) -> list[str]:
    """The labels of a classifier in their order, as transformers reads them; none where it is not there yet."""
    if not (folder / "config.json").exists():
        return []
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    named = settings.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    return [label for _, label in sorted(named.items(), key=lambda entry: int(entry[0]))]


def encoder_decoder(config: Config) -> bool:
    """Whether the chain's model is known to be an encoder-decoder; one on the hub is known once it is fetched."""
    model = config.model
    if isinstance(model, PretrainedModel):
        file = Path(model.path).expanduser() / "config.json"
        return file.exists() and bool(json.loads(file.read_text(encoding="utf-8")).get("is_encoder_decoder"))
    return model.kind == "pocket_t5" or getattr(model, "family", None) == "t5"


def named_policies(config: Config) -> Iterator[tuple[str, str]]:
    """The settings of methods that name a model to start from, and what they name."""
    for place, settings in methods(config):
        for need in dict.fromkeys(("policy", *method_module(settings.name).NEEDS)):
            if need != REWARD and (given := getattr(settings, need)) not in {"auto", "base"}:
                yield f"{place}.{need}", given


def named_scorers(config: Config) -> Iterator[tuple[str, str]]:
    """The settings that name a model which only scores, and what they name."""
    if config.evaluation.reward_model not in {None, "auto"}:
        yield "evaluation.reward_model", config.evaluation.reward_model
    if config.evaluation.toxicity_model:
        yield "evaluation.toxicity_model", config.evaluation.toxicity_model
    trained = [(place, settings) for place, settings in methods(config) if REWARD in method_module(settings.name).NEEDS]
    for place, settings in trained:
        if asks_stage(config) and (given := getattr(settings, REWARD)) != "auto":
            yield f"{place}.{REWARD}", given
    if trained:
        yield from ((f"{place}.path", given) for place, given in named_rewards(config))


def methods(config: Config) -> Iterator[tuple[str, Any]]:
    """The settings of the method and of the stages that it may need, with their places."""
    yield "method", config.method
    yield from ((f"stages.{name}", settings) for name, settings in config.stages.items())


def asks_stage(config: Config) -> bool:
    """Whether the reward reads the method's reward model, which is the rm stage or what method.reward_model names."""
    return any(isinstance(one, ModelReward) and one.path == "auto" for _, one in singles(config.reward))


def named_rewards(config: Config) -> list[tuple[str, str]]:
    """The places of the reward that name a model, and what they name."""
    found = [(place, one) for place, one in singles(config.reward) if isinstance(one, ModelReward | ClassifierReward)]
    return [(place, one.path) for place, one in found if one.path != "auto"]


def reward_mark(config: Config) -> Any:
    """What of a reward's settings and sources decides its scores; its models are inputs of their own."""
    functions = [one.function for _, one in singles(config.reward) if isinstance(one, FunctionReward)]
    code = [digest_files(dotted.sources(name)) for name in functions]
    return [without(config.reward.model_dump(mode="json")), code]


def without(settings: Any) -> Any:
    """Settings less those that change no score, at any depth."""
    if not isinstance(settings, dict):
        return settings
    return {key: without(value) for key, value in settings.items() if key not in NOT_IN_MARK}
