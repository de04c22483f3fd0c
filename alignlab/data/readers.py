"""Read rows from JSON lines, a JSON array, CSV, Parquet, or a folder that `datasets` saved.

The format of a file is recognised by its first bytes, then by its name. Every reader yields one row at a time and
holds only a part of the file. `line` is the line on which a row begins, or its number in formats without lines. A
row that cannot be parsed is yielded as a `Reject`; a file that cannot be read to its end raises a `Failure`.
"""

import csv
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.data import jsonl
from alignlab.data.json_array import CHUNK_BYTES, read_json_array, read_json_objects
from alignlab.data.jsonl import Record, open_bytes, read_failure, read_lines
from alignlab.data.rejects import Reject
from alignlab.data.row_fields import RowFields
from alignlab.data.row_formats import format_of
from alignlab.data.unread_fields import least_words
from alignlab.errors import Explained, Failure, failure

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")  # also with .gz behind
LARGEST_INDEX = 1 << 22  # bytes
LARGEST_CELL = 1 << 24  # characters of one cell of a CSV file
BATCH_ROWS = 256  # rows of a columnar file that are decoded together
INDEX_KEYS = {"file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"}
SEPARATOR = re.compile(r"sep=(.)\s*\Z")  # the first line of a file that Excel wrote
Reader = Callable[[Path], Iterator[Record | Reject]]


def uncompressed_name(path: Path) -> str:
    """Return the name of a file in small letters, without .gz."""
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
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    check_content(path, text)
    if start.startswith(b"PAR1") or path.suffix.lower() == ".parquet":
        return read_parquet
    if uncompressed_name(path).endswith((".csv", ".tsv")):
        return read_csv
    if text.startswith(b"["):
        return jsonl.read_records if _is_list_per_line(path) else read_json_array
    if text and not text.startswith(b"{") and not uncompressed_name(path).endswith(SUFFIXES):
        raise failure(str(path), "the file is not of a kind that holds rows", f"give one of {', '.join(SUFFIXES)}")
    if text.startswith(b"{") and _is_object_over_lines(path):
        return read_objects
    return jsonl.read_records


def check_content(path: Path, text: bytes) -> None:
    """Raise a failure if a file begins as something else than data: a Git LFS pointer, a web page, an index."""
    if text.startswith(b"version https://git-lfs"):
        now = "run `git lfs pull` where it was cloned, or download the file itself"
        raise failure(str(path), "this is a Git LFS pointer, not the data", now)
    if text[:200].lower().startswith((b"<!doctype html", b"<html")):
        raise failure(str(path), "this is a web page, not data", "download the file itself")
    if text.startswith(b"{") and path.suffix == ".json" and (entries := index_entries(path)):
        raise failure(str(path), "this is an index of data sets, not data", f"give a file that it names: {entries[0]}")


def _is_list_per_line(path: Path) -> bool:
    """Return whether every line is a list of its own, rather than the whole file one array."""
    with suppress(ValueError, RecursionError, IndexError, Failure):
        lines = [line for _, line in islice(read_lines(path), 20) if line.strip()][:2]
        values = [json.loads(line) for line in lines]
        return all(isinstance(value, list) for value in values) and (len(values) > 1 or "role" in values[0][0])
    return False


def _is_object_over_lines(path: Path) -> bool:
    """Return whether a file that starts with `{` holds objects over many lines, or one object of many rows."""
    with suppress(StopIteration, Failure, ValueError, RecursionError):
        lines = ((number, line) for number, line in read_lines(path) if line.strip())
        first, second = next(lines)[1], next(lines, None)
        try:
            value = json.loads(first)
        except ValueError:
            return first.strip() == "{" or isinstance(next(read_json_objects(path)), Record)
        return second is None and len(first) < LARGEST_INDEX and rows_inside(value) is not None
    return False


def read_objects(path: Path) -> Iterator[Record | Reject]:
    """Yield objects that lie over many lines; a single one that only holds a list of rows gives those rows."""
    records = read_json_objects(path)
    first, second = next(records), next(records, None)
    if second is None and isinstance(first, Record) and (rows := rows_inside(first.fields)) is not None:
        yield from (Record(path, number, row) for number, row in enumerate(rows, start=1))
        return
    yield first
    if second is not None:
        yield second
        yield from records


def rows_inside(value: Any) -> list[dict[str, Any]] | None:
    """Return the rows that a single object holds in its only list of objects; None if the object is a row itself."""
    if not isinstance(value, dict) or format_of(RowFields(value)) is not None:
        return None
    lists = [inner for inner in value.values() if isinstance(inner, list) and inner]
    others = [inner for inner in value.values() if isinstance(inner, dict) and inner]
    if len(lists) != 1 or others or not all(isinstance(row, dict) for row in lists[0]):
        return None
    texts = ((name, inner) for name, inner in value.items() if isinstance(inner, str))
    if any(len(text.split()) >= least_words(name, compared=False, catch_all=False) for name, text in texts):
        return None  # a text beside the list belongs to its rows
    return list(lists[0])


def _first_bytes(path: Path) -> bytes:
    with suppress(OSError, EOFError, zlib.error), open_bytes(path) as stream:  # the reader reports the error
        return stream.read(CHUNK_BYTES)
    return b""


def index_entries(path: Path) -> list[str]:
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
    """Yield the rows of a CSV file with a header; the separator is the most frequent of `,`, tab, `;` and `|` in it."""
    csv.field_size_limit(LARGEST_CELL)
    last = [""]
    text = (last.__setitem__(0, line) or line for _, line in read_lines(path))
    header = next(text, "")
    separator = max(",\t;|", key=header.count)
    if excel := SEPARATOR.match(header):
        separator, header = excel[1], next(text, "")
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
            names = _column_names(path, cells)
        elif len(cells) == len(names):
            yield Record(path, line, dict(zip(names, cells, strict=True)))
        elif cells and len(cells) < len(names) and not last[0].endswith("\n"):
            raise read_failure(path, line, "the last line is cut off", "fetch the file again")
        elif cells:
            yield Reject(path, line, "", f"the row has {len(cells)} cells", f"{len(names)} cells, as the header has")


def _column_names(path: Path, cells: list[str]) -> list[str]:
    """Return the names of the columns; a column without a name gets its number."""
    names = [cell.strip() or f"column {number}" for number, cell in enumerate(cells, start=1)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise failure(f"{path}:1", f"the header has the column {twice!r} more than once", "rename one, or remove it")
    return names


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
        except (Explained, MemoryError):
            raise
        except Exception as error:  # pyarrow and datasets raise many types of errors for a damaged file
            reason = re.sub(r"\s+", " ", str(error))[:100]
            raise read_failure(path, number + 1, f"cannot be read ({reason})", "fetch it again") from error
        if not batch:
            return
        for row in batch:
            number += 1
            yield Record(path, number, dict(row))
