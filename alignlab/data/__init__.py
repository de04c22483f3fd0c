"""Data sets, seen through views: what a method needs of a row, whatever the rows were made from.

- demonstrations: `prompt` (turns) and `completion`
- pairs: `prompt`, `chosen`, `rejected`
- rankings: `prompt` and `completions`, best first
- prompts: `prompt`
- text: `text`

Further columns may stand beside them: `kind`, the kind of prompt, and `id`.
"""

from typing import TYPE_CHECKING

from alignlab.config.dataset import DataSet, FileData, HhRlhfData, HubData, PocketData
from alignlab.errors import failure

if TYPE_CHECKING:
    from datasets import Dataset

VIEWS = ("demonstrations", "pairs", "rankings", "prompts", "text")
SPLITS = ("train", "validation", "test")


def view(dataset: DataSet, name: str, split: str) -> "Dataset":
    """Give one view of one split; raise a mistake where the data set has no such view."""
    if name not in VIEWS or split not in SPLITS:
        raise ValueError(f"{name}, {split}: neither a view nor a split")
    if isinstance(dataset, HhRlhfData):
        from alignlab.data import hh_rlhf

        return hh_rlhf.view(dataset, name, split)
    if isinstance(dataset, FileData):
        from alignlab.data import file_dataset

        return file_dataset.view(dataset, name, split)
    if isinstance(dataset, HubData):
        from alignlab.data import file_dataset, hub_dataset

        return file_dataset.view(hub_dataset.as_files(dataset), name, split)
    return pocket_view(dataset, name, split)


def pocket_view(dataset: PocketData, name: str, split: str) -> "Dataset":
    """Give a view of the pocket world's files, which the annotators have written before."""
    from datasets import Dataset

    from alignlab.data import pocket_rows
    from alignlab.pocket.world import data_folder

    if not (folder := data_folder(dataset)).exists():
        raise failure(str(folder), "the pocket world has not been written yet", "call annotators.prepare first")
    return Dataset.from_list(pocket_rows.view(dataset, name, split))


def content(dataset: DataSet) -> str:
    """Hash a data set by content, to 16 hexadecimal digits: equal digits, equal rows."""
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
