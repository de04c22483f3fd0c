"""Find the model that a setting names: the base of a chain, a folder, or a hub id.

A model to start from is made ready first (template, padding). One that only scores (a reward model, a classifier) is
used as it was published: its tokenizer and its template are its own.
"""

import json
from pathlib import Path
from typing import NamedTuple

from alignlab.config.model import PretrainedModel
from alignlab.config.schema import Config
from alignlab.errors import mistake
from alignlab.runtime.files import digest_files

POCKET = "pocket"  # the path of pocket's own classifier, which is made on first use


class Source(NamedTuple):
    """Where a stage takes a model from: the base model, another stage, or a path or hub id as given."""

    name: str
    path: Path
    fingerprint: str


def given_model(config: Config, place: str, given: str) -> Source:
    """A model to start from, named by its path, known by its content, or by its hub id, known by its commit."""
    path = find_model(place, given)
    if path.exists():
        return Source(given, path, digest_files([path]))
    from alignlab.models.pretrained import base_folder

    folder = base_folder(hub_model(config, given))
    return Source(given, folder, folder.name)


def given_reward(config: Config, place: str, given: str) -> Source:
    """A model that scores, named by its path, known by its content, or by its hub id, known by its commit."""
    if given == POCKET:
        from alignlab.models.pocket import insult_classifier

        return Source(given, insult_classifier.folder(), insult_classifier.folder().name)
    path = find_model(place, given)
    if path.exists():
        return Source(given, path, digest_files([path]))
    from alignlab.models.pretrained import published_folder

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


SPEAKS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")  # how transformers names what can generate


def check_speaks(place: str, folder: Path) -> None:
    """Raise a `Mistake` where a model's own settings say that it has no head to generate with."""
    file = folder / "config.json"
    kinds = json.loads(file.read_text(encoding="utf-8")).get("architectures") if file.exists() else None
    if kinds and not any(kind.endswith(SPEAKS) for kind in kinds):
        raise mistake(place, f"{folder} is a {kinds[0]}, which generates nothing", "give a language model's folder")


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
