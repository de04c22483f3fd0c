"""Prepare the language models of a task: a base model, a folder, a GGUF file, or one of the hub."""

from pathlib import Path

from alignlab.config.schema import Config
from alignlab.config.settings import path_in_home
from alignlab.errors import mistake
from alignlab.models import kinds, references
from alignlab.models.gguf_files import SUFFIX
from alignlab.models.references import Source
from alignlab.pipeline.prepare_inputs import prepare_data


def check_language_model(setting: str, named: str) -> None:
    """Raise a `Mistake` where a setting names no language model; loads nothing."""
    if named != "base" and not is_gguf(setting, named):
        references.check_generates(setting, references.find_model(setting, named))


def language_model(config: Config, setting: str, named: str) -> Source:
    """Return a model that answers; it is downloaded, and prepared where it lacks a template or a pad token."""
    if named == "base":
        return base_model(config)
    folder = path_in_home(Path(named)) if is_gguf(setting, named) else references.find_model(setting, named)
    from alignlab.models import prepared_tokenizer, pretrained

    if folder.is_dir() and prepared_tokenizer.is_ready(folder):
        return Source(named, folder, folder.name)
    model = references.hub_model(config, str(folder) if folder.exists() else named)
    pretrained.locate(model)
    return Source(named, pretrained.base_model(model), "")


def base_model(config: Config) -> Source:
    """Return the base model of a config."""
    if config.model.kind == "scratch":  # its vocabulary comes from the data set
        prepare_data(config)
    if model := config.model.pretrained:
        from alignlab.models import pretrained

        pretrained.locate(model)
    folder = kinds.base_model(config.model, config.dataset)
    return Source(model.path if model else config.model.kind, folder, folder.name)


def is_gguf(setting: str, named: str) -> bool:
    """Return whether a model is named by a GGUF file; raises a `Mistake` where that is not there."""
    if not named.endswith(SUFFIX):
        return False
    if not path_in_home(Path(named)).is_file():
        raise mistake(setting, f"{named} is not there", "give a GGUF file that exists")
    return True
