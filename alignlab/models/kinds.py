"""Find the module that makes a base model, by the kind of its settings.

Each module offers `base_folder(model, dataset)`, which names the folder without making it, and
`base_model(model, dataset)`, which makes it where it is not in the cache. A data set decides the vocabulary of a model
from scratch; the other kinds take no notice of it.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from alignlab.config.dataset import DataSettings
from alignlab.config.model import ModelSettings

MODULES = {
    "pocket": "alignlab.models.pocket.base",
    "pocket_t5": "alignlab.models.pocket.t5",
    "scratch": "alignlab.models.from_scratch",
    "pretrained": "alignlab.models.pretrained",
}


def module_of(model: ModelSettings) -> Any:
    """Import the module of a kind of model."""
    return import_module(MODULES[model.kind])


def base_folder(model: ModelSettings, dataset: DataSettings) -> Path:
    """Return the folder of a base model; it may not exist yet."""
    folder: Path = module_of(model).base_folder(model, dataset)
    return folder


def base_model(model: ModelSettings, dataset: DataSettings) -> Path:
    """Make a base model where it is not in the cache; return its folder."""
    folder: Path = module_of(model).base_model(model, dataset)
    return folder


def origin(model: ModelSettings) -> str:
    """Return where the weights of a base model come from, for the plan."""
    describe = getattr(module_of(model), "origin", None)
    return str(describe(model)) if describe else model.origin


def readiness(model: ModelSettings) -> list[str]:
    """Return what is repaired when a base model is made ready, one sentence each, for the plan."""
    describe = getattr(module_of(model), "readiness", None)
    return list(describe(model)) if describe else []
