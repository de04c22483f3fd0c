"""The files and saved data sets at the paths of a config, and the split that each belongs to.

In a folder the names of files decide, as on the Hugging Face hub: `train-00000-of-00001.parquet` is trained on,
`test-…` and `validation-…` are held out. A file that a path names itself belongs to the split of its setting.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from alignlab.data.readers import SUFFIXES, index_entries, uncompressed_name
from alignlab.data.splits import Split
from alignlab.errors import failure

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
