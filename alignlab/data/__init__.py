"""Data sets as views: every kind of data set gives the same columns for the same method.

- demonstrations: `prompt` (turns) and `completion`
- pairs: `prompt`, `chosen`, `rejected`, and `label` and `weight` if they differ between pairs
- rankings: `prompt` and `completions`, best first
- prompts: `prompt`
- text: `text`

All views may have the columns `kind` (the kind of prompt) and `id`.
"""

from typing import TYPE_CHECKING

from alignlab.config.dataset import DataSet, FileData, HhRlhfData, HubData, PocketData
from alignlab.data.splits import SPLITS
from alignlab.errors import failure

if TYPE_CHECKING:
    from datasets import Dataset

VIEWS = ("demonstrations", "pairs", "rankings", "prompts", "text")


def view(dataset: DataSet, name: str, split: str) -> "Dataset":
    """Return one view of one split; raise a mistake if the data set does not have it."""
    if name not in VIEWS or split not in SPLITS:
        raise ValueError(f"{name!r} is not a view, or {split!r} is not a split")
    if isinstance(dataset, HhRlhfData):
        from alignlab.data import hh_rlhf

        return hh_rlhf.view(dataset, name, split)
    if isinstance(dataset, FileData):
        from alignlab.data import file_dataset

        return file_dataset.view(dataset, name, split)
    if isinstance(dataset, HubData):
        from alignlab.data import file_dataset, hub_dataset

        return file_dataset.view(hub_dataset.as_file_data(dataset), name, split)
    return pocket_view(dataset, name, split)


def pocket_view(dataset: PocketData, name: str, split: str) -> "Dataset":
    """Return a view of the pocket world's files."""
    from datasets import Dataset

    from alignlab.data import pocket_rows
    from alignlab.pocket.world import data_folder

    if not (folder := data_folder(dataset)).exists():
        raise failure(str(folder), "the pocket world has not been written yet", "call annotators.prepare first")
    return Dataset.from_list(pocket_rows.view(dataset, name, split))


def content(dataset: DataSet) -> str:
    """Hash a data set by content, to 16 hexadecimal digits: equal hashes mean equal rows."""
    if isinstance(dataset, HhRlhfData):
        from alignlab.data import hh_rlhf

        return hh_rlhf.content(dataset)
    if isinstance(dataset, FileData):
        from alignlab.data import file_dataset

        return file_dataset.content(dataset)
    if isinstance(dataset, HubData):
        from alignlab.data import hub_dataset

        return hub_dataset.content(dataset)
    from alignlab.pocket.world import data_folder

    return data_folder(dataset).name
