"""Data sets of the Hugging Face hub: two splits are fetched once and kept as saved sets, then read as any file is."""

from pathlib import Path

from alignlab.config.dataset import FileData, HubData
from alignlab.data import file_dataset
from alignlab.errors import failure
from alignlab.runtime.files import building, cache_root, digest
from alignlab.runtime.hub_access import reach

FOR_PLANS = {"rows", "tokens"}  # what a plan is told as long as nothing has been fetched


def folder(dataset: HubData) -> Path:
    """Name the folder of the fetched splits, `train` and `test`."""
    wanted = [dataset.path, dataset.name, dataset.revision, dataset.train_split, dataset.test_split]
    return cache_root() / "hub" / digest(wanted)


def content(dataset: HubData) -> str:
    """Hash the data by content; by its name, as long as nothing has been fetched."""
    if folder(dataset).exists():
        return file_dataset.content(as_files(dataset))
    return digest(dataset.model_dump(mode="json", exclude=FOR_PLANS))


def as_files(dataset: HubData) -> FileData:
    """The fetched splits as files; raises a failure where they have not been fetched."""
    if not (place := folder(dataset)).exists():
        raise failure("dataset.path", f"{dataset.path} has not been fetched yet", "run it without dry_run")
    steps = dataset.model_dump(exclude={"kind", "path", "name", "revision", *FOR_PLANS})
    own = {
        "kind": "file",
        "path": (place / "train",),
        "test_path": (place / "test",),
        "weights": None,
        "world": None,
        "test": 0.0,
    }
    return FileData.model_validate(steps | own)


def fetch(dataset: HubData) -> None:
    """Fetch both splits where they are not in the cache yet."""
    if folder(dataset).exists():
        return
    from datasets import load_dataset

    reach("dataset.path", dataset.path, "dataset=file dataset.path=…")
    with building(folder(dataset)) as place:
        if place is None:
            return
        for name, split in (("train", dataset.train_split), ("test", dataset.test_split)):
            try:
                rows = load_dataset(dataset.path, dataset.name, split=split, revision=dataset.revision)
            except (OSError, ValueError, KeyError) as error:
                reason = " ".join(str(error).split())[:200]
                what = f"{dataset.path}, split {split!r}, could not be fetched ({reason})"
                raise failure(
                    "dataset.path", what, "check the name and the splits; set HF_TOKEN if it is gated"
                ) from error
            rows.save_to_disk(place / name)
