"""Read rows from JSON lines, a JSON array, CSV, Parquet, or a folder that `datasets` saved.

The format of a file is recognised by its first bytes, then by its name. Every reader yields one row at a time and
holds only a part of the file. `line` is the line on which a row begins, or its number in formats without lines. A
row that cannot be parsed is yielded as a `Reject`; a file that cannot be read to its end raises a `Failure`.
"""

import csv
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.data import jsonl
from alignlab.data.json_array import CHUNK_BYTES, read_json_array
from alignlab.data.jsonl import Record, open_bytes, read_failure, read_lines
from alignlab.data.rejects import Reject
from alignlab.errors import Failure, failure

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
LARGEST_INDEX = 1 << 22  # bytes
LARGEST_CELL = 1 << 24  # characters of one cell of a CSV file
BATCH_ROWS = 256  # rows of a columnar file that are decoded together
INDEX_KEYS = {"file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"}
Reader = Callable[[Path], Iterator[Record | Reject]]


class Source(NamedTuple):
    """A file, or a folder that `datasets` saved; `label` names it in the ids of rows."""

    path: Path
    label: str


def list_sources(paths: Sequence[Path], split: str) -> list[Source]:
    """List the files and saved data sets at paths; `split` is the one to take of a saved dictionary."""
    files = [file for path in paths for file in _files_at(path, split)]
    names = [file.name for file in files]
    return [Source(file, file.name if names.count(file.name) == 1 else str(file)) for file in files]


def _files_at(path: Path, split: str) -> list[Path]:
    if not path.exists():
        raise failure(str(path), "there is no such file or folder", "give a path that exists")
    if path.is_file():
        return [path]
    if (path / "dataset_dict.json").exists():
        if not (path / split / "state.json").exists():
            splits = sorted(p.parent.name for p in path.glob("*/state.json"))
            raise failure(str(path), f"the saved set has no split {split!r}", f"it has {', '.join(splits) or 'none'}")
        return [path / split]
    if (path / "state.json").exists():
        return [path]
    files = sorted(p for p in path.rglob("*") if p.is_file() and _uncompressed_name(p).endswith(SUFFIXES))
    files = [p for p in files if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    files = [p for p in files if not (p.suffix == ".json" and _index_entries(p))]
    if not files:
        raise failure(str(path), f"the folder holds no {', '.join(SUFFIXES)} file", "give another path")
    return files


def _uncompressed_name(path: Path) -> str:
    return path.name.lower().removesuffix(".gz")


def read_records(path: Path) -> Iterator[Record | Reject]:
    """Yield the rows of a file; raise a failure if it holds none or cannot be read to its end."""
    number = 0
    for number, row in enumerate(choose_reader(path)(path), start=1):  # noqa: B007 - `number` is used after the loop
        yield row
    if not number:
        raise failure(f"{path}:1", "the file holds no rows", "give a file with rows")


def choose_reader(path: Path) -> Reader:
    """Return the reader for a file, by its first bytes and then by its name."""
    if path.is_dir():
        return read_saved_dataset
    start = _first_bytes(path)
    if start.startswith(b"PAR1") or path.suffix.lower() == ".parquet":
        return read_parquet
    if _uncompressed_name(path).endswith((".csv", ".tsv")):
        return read_csv
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        return read_json_array
    if text and not text.startswith(b"{") and not _uncompressed_name(path).endswith(SUFFIXES):
        raise failure(str(path), "the file is not of a kind that holds rows", f"give one of {', '.join(SUFFIXES)}")
    if _uncompressed_name(path).endswith(".json") and text.startswith(b"{"):
        _check_json_lines(path)
    return jsonl.read_records


def _first_bytes(path: Path) -> bytes:
    with suppress(OSError, EOFError, zlib.error), open_bytes(path) as stream:  # the reader reports the error
        return stream.read(CHUNK_BYTES)
    return b""


def _check_json_lines(path: Path) -> None:
    """Raise a failure if a `.json` file that starts with `{` is an index or one object over many lines."""
    number, first = next(iter(read_lines(path)))
    entries = _index_entries(path)
    with suppress(ValueError, RecursionError):
        if isinstance(json.loads(first), dict) and not entries:
            return
    if entries:
        raise failure(str(path), "this is an index of data sets, not data", f"give a file that it names: {entries[0]}")
    raise failure(f"{path}:{number}", "the file is one JSON value, not rows", "give an array, or one object a line")


def _index_entries(path: Path) -> list[str]:
    """Return the data sets that an index in LLaMA-Factory's format names; none if the file is not an index."""
    if path.stat().st_size > LARGEST_INDEX:
        return []
    with suppress(ValueError, RecursionError, OSError):
        index = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(index, dict) or not all(isinstance(v, dict) and INDEX_KEYS & set(v) for v in index.values()):
            return []
        return [str(next(v[key] for key in v if key in INDEX_KEYS)) for v in index.values()]
    return []


def read_csv(path: Path) -> Iterator[Record | Reject]:
    """Yield the rows of a CSV file with a header; the separator is the comma, tab or semicolon most frequent in it."""
    csv.field_size_limit(LARGEST_CELL)
    text = (line for _, line in read_lines(path))
    header = next(text, "")
    separator = max(",\t;", key=header.count)
    rows = csv.reader(chain([header], text), delimiter=separator, strict=True)
    names: list[str] = []
    while True:
        line = rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error) or "field limit" in str(error) or not names:
                raise read_failure(path, line, f"a cell does not end ({error})", "fix its quotes") from error
            yield Reject(path, line, "", f"the line is not CSV ({error})", f"{len(names)} cells")
            continue
        if not names:
            names = cells
        elif len(cells) == len(names):
            yield Record(path, line, dict(zip(names, cells, strict=True)))
        elif cells:
            yield Reject(path, line, "", f"the row has {len(cells)} cells", f"{len(names)} cells, as the header has")


def read_parquet(path: Path) -> Iterator[Record | Reject]:
    """Yield the rows of a Parquet file."""
    from pyarrow.parquet import ParquetFile

    def rows() -> Iterator[Mapping[str, Any]]:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield from batch.to_pylist()

    return _numbered(path, rows())


def read_saved_dataset(path: Path) -> Iterator[Record | Reject]:
    """Yield the rows of a folder written by `Dataset.save_to_disk`."""
    from datasets import load_from_disk

    def rows() -> Iterator[Mapping[str, Any]]:
        dataset: Dataset = load_from_disk(str(path))
        for start in range(0, len(dataset), BATCH_ROWS):
            yield from dataset.select(range(start, min(start + BATCH_ROWS, len(dataset)))).to_list()

    return _numbered(path, rows())


def _numbered(path: Path, rows: Iterator[Mapping[str, Any]]) -> Iterator[Record | Reject]:
    """Number the rows; turn an error of a library into a failure that names the row."""
    number = 0
    while True:
        try:
            batch = list(islice(rows, BATCH_ROWS))
        except (Failure, KeyboardInterrupt, MemoryError):
            raise
        except Exception as error:  # pyarrow and datasets raise many types of errors for a damaged file
            reason = re.sub(r"\s+", " ", str(error))[:100]
            raise read_failure(path, number + 1, f"cannot be read ({reason})", "fetch it again") from error
        if not batch:
            return
        for row in batch:
            number += 1
            yield Record(path, number, dict(row))
