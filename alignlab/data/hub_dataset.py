"""Data sets of the Hugging Face hub: download the training and the test split once, then read them as files."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.config.dataset import FileData, HubData
from alignlab.data import file_dataset
from alignlab.data.prepared import Prepared
from alignlab.errors import failure
from alignlab.runtime.cache import building, is_intact
from alignlab.runtime.files import cache_root, digest
from alignlab.runtime.hub_access import require_hub

if TYPE_CHECKING:
    from datasets import Dataset

PLAN_SETTINGS = {"rows", "tokens"}  # sizes that a plan assumes before the data set is downloaded


def folder(dataset: HubData) -> Path:
    """Return the folder of the downloaded splits, `train` and `test`."""
    source = [dataset.path, dataset.name, dataset.revision, dataset.train_split, dataset.test_split]
    return cache_root() / "hub" / digest(source)


def content(dataset: HubData) -> str:
    """Hash the downloaded data by content; hash the settings if it is not downloaded yet."""
    if is_intact(folder(dataset)):
        return file_dataset.content(as_file_data(dataset))
    return digest(dataset.model_dump(mode="json", exclude=PLAN_SETTINGS))


def view(dataset: HubData, name: str, split: str) -> "Dataset":
    """Return one view of one split, with the columns that `alignlab.data.view` lists."""
    return file_dataset.view(as_file_data(dataset), name, split)


def prepared(dataset: HubData) -> Prepared:
    """Return the prepared data set for its card."""
    return file_dataset.prepared(as_file_data(dataset))


def plan_lines(dataset: HubData) -> Iterator[str]:
    """Yield what a plan says of the rows; nothing before they are downloaded."""
    if is_intact(folder(dataset)):
        yield from file_dataset.plan_lines(as_file_data(dataset))


def as_file_data(dataset: HubData) -> FileData:
    """Return the settings that read the downloaded splits as files; raise a failure if they are not downloaded."""
    if not is_intact(splits := folder(dataset)):
        raise failure("dataset.path", f"{dataset.path} has not been fetched yet", "run it without dry_run")
    steps = dataset.model_dump(exclude={"kind", "path", "name", "revision", *PLAN_SETTINGS})
    files = {
        "kind": "file",
        "path": (splits / "train",),
        "test_path": (splits / "test",),
        "weights": None,
        "select": None,
        "world": None,
        "test": 0.0,
    }
    return FileData.model_validate(steps | files)


def fetch(dataset: HubData) -> None:
    """Download both splits if they are not cached."""
    if is_intact(folder(dataset)):
        return
    from datasets import load_dataset

    require_hub("dataset.path", dataset.path, "dataset=file dataset.path=…")
    with building(folder(dataset)) as splits:
        if splits is None:
            return
        for name, split in (("train", dataset.train_split), ("test", dataset.test_split)):
            try:
                rows = load_dataset(dataset.path, dataset.name, split=split, revision=dataset.revision)
            except (OSError, ValueError, KeyError) as error:
                reason = " ".join(str(error).split())[:200]
                what = f"{dataset.path}, split {split!r}, could not be fetched ({reason})"
                now = "check the name and the splits; set HF_TOKEN if it is gated"
                raise failure("dataset.path", what, now) from error
            rows.save_to_disk(splits / name)
