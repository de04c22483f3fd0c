"""Data sets as views: every kind of data set gives the same columns for the same method.

`alignlab/data/views/` has one file for each view. All may have the columns `kind` (the kind of prompt) and `id`.

A kind of data set is a module, found by `dataset.kind`, that offers `view`, `content`, and `prepared` for its card; one
whose rows are downloaded offers `fetch` as well, and one that can say more of them before training `plan_lines`.
"""

from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from alignlab.config.dataset import DataSettings
from alignlab.data.splits import SPLITS

if TYPE_CHECKING:
    from datasets import Dataset

MODULES = {
    "pocket": "alignlab.data.pocket_rows",
    "hh_rlhf": "alignlab.data.hh_rlhf",
    "file": "alignlab.data.file_dataset",
    "hub": "alignlab.data.hub_dataset",
    "feedback": "alignlab.serving.store.dataset",
}


def module_name(dataset: DataSettings) -> str:
    """Return the name of the module of a kind of data set."""
    return MODULES[dataset.kind]


def module_of(dataset: DataSettings) -> Any:
    """Import the module of a kind of data set."""
    return import_module(module_name(dataset))


def view(dataset: DataSettings, name: str, split: str) -> "Dataset":
    """Return one view of one split; raise a mistake if the data set does not have it."""
    if split not in SPLITS:
        raise ValueError(f"{split!r} is not a split")
    rows: Dataset = module_of(dataset).view(dataset, name, split)
    return rows


def content(dataset: DataSettings) -> str:
    """Hash a data set by content, to 16 hexadecimal digits: equal hashes mean equal rows."""
    hashed: str = module_of(dataset).content(dataset)
    return hashed


def plan_lines(dataset: DataSettings) -> Iterator[str]:
    """Yield what a plan says of the rows: numbers by split, formats, faults that were counted, unread fields."""
    module = module_of(dataset)
    if hasattr(module, "plan_lines"):
        yield from module.plan_lines(dataset)


def fetch(dataset: DataSettings) -> None:
    """Download the rows where they lie elsewhere and are not in the cache."""
    module = module_of(dataset)
    if hasattr(module, "fetch"):
        module.fetch(dataset)
