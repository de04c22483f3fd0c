"""Find the model that a setting names: a folder or a hub id.

A model to start from is prepared first (chat template, padding). One that only scores (a reward model, a classifier)
is used as it was published, with its own tokenizer and template.
"""

from pathlib import Path
from typing import NamedTuple

from alignlab.config.model import PretrainedModel
from alignlab.config.schema import Config
from alignlab.config.settings import path_in_home
from alignlab.errors import failure, mistake
from alignlab.models import model_folder
from alignlab.runtime.files import digest_files, read_json
from alignlab.runtime.run_files import RESULT

POCKET = "pocket"  # as a path: pocket's classifier of insults, which is trained on first use


class Source(NamedTuple):
    """Where a stage takes a model from: the base model, another stage, or a path or hub id of the config."""

    name: str
    path: Path
    fingerprint: str


def model_source(config: Config, setting: str, path: str) -> Source:
    """Return a model to start from; the fingerprint is a folder's content, or the commit of a hub id."""
    model = policy_to_prepare(config, setting, path)
    if model is None:
        folder = find_model(setting, path)
        return Source(path, folder, digest_files([folder]))
    from alignlab.models.pretrained import base_folder

    prepared = base_folder(model)
    return Source(path, prepared, prepared.name)


def policy_to_prepare(config: Config, setting: str, path: str) -> PretrainedModel | None:
    """Return the settings of a model to start from that has to be made ready; None for a folder that is ready."""
    folder = find_model(setting, path)
    if not folder.exists():
        return hub_model(config, path)
    from alignlab.models.prepared_tokenizer import is_ready

    return None if is_ready(folder) else hub_model(config, str(folder))


def scorer_source(config: Config, setting: str, path: str) -> Source:
    """Return a model that scores; the fingerprint is a folder's content, or the commit of a hub id."""
    if path == POCKET:
        from alignlab.models.pocket import insult_classifier

        return Source(path, insult_classifier.folder(), insult_classifier.folder().name)
    folder = find_model(setting, path)
    if folder.exists():
        return Source(path, folder, digest_files([folder]))
    from alignlab.models.pretrained import published_folder

    published = published_folder(hub_model(config, path))
    return Source(path, published, published.name)


def hub_model(config: Config, path: str) -> PretrainedModel:
    """Return the settings of a model that is named by a hub id or a folder; it is loaded as the base model is."""
    base = config.model.pretrained
    return PretrainedModel(
        kind="pretrained",
        path=path,
        revision="main",
        attn_implementation=base.attn_implementation if base else None,
        chat_template=base.chat_template if base else None,
    )


NAME_STAGE = "run its command again, or give the folder of its stage, such as <run>/sft"


def last_stage(run: Path) -> list[Path]:
    """Return the model's folder of a run's last stage; empty where a folder holds no finished run."""
    file = run / RESULT
    if not file.exists():
        return []
    result = read_json(file, NAME_STAGE)
    if not isinstance(result, dict):
        raise failure(str(file), "is no JSON object", NAME_STAGE)
    stage = result.get("stage")
    return [run / str(stage) / "model"] if stage else []


def find_model(setting: str, path: str) -> Path:
    """Return the folder of a model, of a stage's model or of that of a run's last stage, or a hub id as a path.

    Raises a `Mistake` where the path is neither a folder of a model nor a hub id.
    """
    folder = path_in_home(Path(path))
    for candidate in (folder / "model", folder, *last_stage(folder)):
        if (candidate / "config.json").exists():
            model_folder.check(candidate)
            return candidate.absolute()
    if folder.exists():
        raise mistake(setting, f"{path} holds no model", "give a folder with config.json in it, or auto, or base")
    if path.count("/") != 1 or folder.parent.exists():
        raise mistake(setting, f"{path} is not there", "give a model's folder, a hub id (owner/name), auto or base")
    return folder


LANGUAGE_MODELS = {"AutoModelForCausalLM", "AutoModelForSeq2SeqLM"}  # in auto_map
GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # endings of transformers' language models


def check_generates(setting: str, folder: Path) -> None:
    """Raise a `Mistake` where a model has no language head by its config.json; a class of its own may have any name."""
    file = folder / "config.json"
    settings = model_folder.read_object(file) if file.exists() else {}
    classes = None if {*(settings.get("auto_map") or ())} & LANGUAGE_MODELS else settings.get("architectures")
    if classes and not any(str(name).endswith(GENERATES) for name in classes):
        raise mistake(setting, f"{folder} is a {classes[0]}, which generates nothing", "give a language model's folder")


CLASSIFIES = ("ForSequenceClassification",)  # the ending of transformers' classifiers
SCORES = (*CLASSIFIES, "PooledReward", "DecoderReward")  # and the reward models of method=rm


def check_scores(setting: str, folder: Path, endings: tuple[str, ...]) -> None:
    """Raise a `Mistake` where a model has no head that scores; a reward model has one output, and a template."""
    file = folder / "config.json"
    if not file.exists():
        return
    name = (model_folder.read_object(file).get("architectures") or ["model of no class"])[0]
    now = "give a sequence classifier" if endings == CLASSIFIES else "give the folder of a method=rm run"
    if not name.endswith(endings):
        raise mistake(setting, f"{folder} is a {name}, which has no head that scores", now)
    if endings == SCORES and (outputs := len(classifier_labels(folder))) != 1:
        raise mistake(setting, f"the head of {folder} has {outputs} outputs, not one", f"{now}, or {AS_CLASSIFIER}")
    if endings == SCORES and not has_template(folder):
        raise mistake(setting, f"the tokenizer of {folder} has no chat template", f"{now}, or {AS_CLASSIFIER}")


AS_CLASSIFIER = "use reward=classifier reward.include_prompt=true"


def has_template(folder: Path) -> bool:
    """Return whether a model's folder has a chat template."""
    if (folder / "chat_template.jinja").exists() or (folder / "chat_template.json").exists():
        return True
    file = folder / "tokenizer_config.json"
    return not file.exists() or "chat_template" in model_folder.read_object(file)


def classifier_labels(folder: Path) -> list[str]:
    """Return the labels of a classifier in their order; empty where its folder does not exist yet."""
    if not (folder / "config.json").exists():
        return []
    settings = model_folder.read_object(folder / "config.json")
    labels = settings.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    return [label for _, label in sorted(labels.items(), key=lambda entry: int(entry[0]))]
