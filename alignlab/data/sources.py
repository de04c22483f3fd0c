"""The files and saved data sets at the paths of a config, and the split that each belongs to.

In a folder the names of files decide, as on the Hugging Face hub: `train-00000-of-00001.parquet` is trained on,
`test-…` and `validation-…` are held out. A file that a path names itself belongs to the split of its setting.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from alignlab.config.dataset import FileData
from alignlab.data.readers import SUFFIXES, index_entries, uncompressed_name
from alignlab.data.splits import Split
from alignlab.errors import failure, mistake
from alignlab.pocket import dialogues
from alignlab.pocket.world import data_folder

NOT_DATA = {"dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "config.json", "package.json",
            "generation_config.json", "tokenizer.json", "tokenizer_config.json"}  # fmt: skip
SPLIT_WORDS: dict[Split, set[str]] = {
    "test": {"test", "testing", "eval", "evaluation"},
    "validation": {"validation", "valid", "val", "dev"},
    "train": {"train", "training"},
}
SHARD = re.compile(r"-\d+-of-\d+.*\Z")
LETTERS = re.compile(r"[^a-z]+")


class Source(NamedTuple):
    """A file, or a folder that `datasets` saved; `label` names it in the ids of rows.

    `split` is the split that its name says, in a folder; None where the name says none or the path names the file.
    """

    path: Path
    label: str
    split: Split | None = None

    def files(self) -> list[Path]:
        """Return the file, or those in the folder."""
        return sorted(path for path in self.path.rglob("*") if path.is_file()) if self.path.is_dir() else [self.path]

    def size(self) -> int:
        """Return the bytes of the file, or of those in the folder."""
        return sum(file.stat().st_size for file in self.files())


def sources_by_split(dataset: FileData) -> dict[Split, list[Source]]:
    """Return the sources of each split: by the setting, and in folders by the names of the files.

    Raise a mistake if a file would be trained and measured on, and a failure if a folder holds held-out rows alone.
    """
    root = world_folder(dataset)
    read = list_sources(train_paths(dataset), dataset.train_split)
    named = list_sources([root / path for path in dataset.test_path or ()], dataset.test_split)
    by_split: dict[Split, list[Source]] = {"train": [], "validation": [], "test": []}
    for source in read:
        by_split[source.split or "train"].append(source)
    if dataset.test_path:
        by_split["test"] = [s for s in named if s.split == "test"] or [s for s in named if s.split != "train"] or named
    if not by_split["train"]:
        what = "the folder holds files of held-out splits alone"
        raise failure(str(dataset.path[0]), what, f"give the file itself to train on it: {read[0].path}")
    if both := {s.path.resolve() for s in by_split["train"]} & {s.path.resolve() for s in by_split["test"]}:
        raise mistake("dataset.test_path", f"{min(both)} is among the training files too", "give each its own files")
    return by_split


def train_paths(dataset: FileData) -> list[Path]:
    """Return the training paths, relative to the folder of the world if the config names one."""
    root = world_folder(dataset)
    return [root / path for path in dataset.path]


def world_folder(dataset: FileData) -> Path:
    """Return the folder that paths are relative to: that of the world, or the current folder."""
    if dialogue_world := dataset.dialogue_world:
        return dialogues.folder(dialogue_world)
    return data_folder(dataset.pocket_world) if dataset.pocket_world else Path()


def list_sources(paths: Sequence[Path], split: str) -> list[Source]:
    """List the files and saved data sets at paths; `split` is the one to take of a saved dictionary or a folder."""
    files = [file for path in paths for file in _files_at(path, split)]
    names = [file.name for file, _ in files]
    return [Source(file, file.name if names.count(file.name) == 1 else str(file), part) for file, part in files]


def _files_at(path: Path, split: str) -> list[tuple[Path, Split | None]]:
    if not path.exists():
        raise failure(str(path), "there is no such file or folder", "give a path that exists")
    if path.is_file():
        return [(path, None)]
    if (path / "dataset_dict.json").exists():
        if not (path / split / "state.json").exists():
            splits = sorted(p.parent.name for p in path.glob("*/state.json"))
            raise failure(str(path), f"the saved set has no split {split!r}", f"it has {', '.join(splits) or 'none'}")
        return [(path / split, None)]
    if (path / "state.json").exists():
        return [(path, None)]
    files = list(_data_files(path))
    if not files:
        raise failure(str(path), f"the folder holds no {', '.join(SUFFIXES)} file", "give another path")
    return list(_with_splits(path, files, split))


def _data_files(folder: Path) -> Iterator[Path]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and uncompressed_name(p).endswith(SUFFIXES)):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.name not in NOT_DATA and not (path.suffix == ".json" and index_entries(path)):
            yield path


def _with_splits(folder: Path, files: list[Path], split: str) -> Iterator[tuple[Path, Split | None]]:
    """Yield the files with their splits; of several splits of one kind only the one named `split` is taken."""
    parts = {file: split_in_name(file.relative_to(folder)) for file in files}
    wanted = split_in_name(Path(split)) or "train"
    stems = {stem_of(file) for file, part in parts.items() if part == wanted and SHARD.search(file.name)}
    if len(stems) > 1 and split not in stems:
        what = f"the folder holds the splits {', '.join(sorted(stems))}"
        raise failure(str(folder), what, f"choose one with dataset.{wanted}_split")
    yield from ((file, part) for file, part in parts.items() if part != wanted or not stems or stem_of(file) == split
                or len(stems) == 1)  # fmt: skip


def stem_of(file: Path) -> str:
    """Return the name of a file without its number and its suffix."""
    return SHARD.sub("", file.name).partition(".")[0]


def split_in_name(path: Path) -> Split | None:
    """Return the split that a path's words name; None if they name none."""
    words = {word for part in path.parts for word in LETTERS.split(part.lower())}
    return next((split for split, names in SPLIT_WORDS.items() if words & names), None)
