"""Rows from the files that people have: JSON lines, a JSON array, CSV, Parquet, sets that `datasets` has saved.

Every reader yields one row at a time and holds no more than a piece of the file; `line` is the line that a row
begins on, or the row's number where the format has no lines. What kind of file it is, its first bytes say, and
only then its name. A row that cannot be made out is a `Reject`; a file that cannot be read on is a `Failure`.
"""

import csv
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.data import jsonl
from alignlab.data.jsonl import Record, Reject, lines, opened, unreadable
from alignlab.errors import Failure, failure

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
PIECE = 1 << 16  # bytes read at a time
LARGEST = 1 << 24  # characters of one row
CELL = 1 << 24  # characters of one cell of a CSV file
AT_ONCE = 256  # rows of a columnar file that are decoded together
INDEX = {"file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"}
Reader = Callable[[Path], Iterator[Record | Reject]]


class Source(NamedTuple):
    """One file, or one folder that `datasets` has saved, and how rows name it."""

    path: Path
    label: str


def sources(paths: Sequence[Path], split: str) -> list[Source]:
    """List what is behind paths: files, folders of them, saved sets (of a saved dictionary, the split named)."""
    found = [file for path in paths for file in _inside(path, split)]
    names = [file.name for file in found]
    return [Source(file, file.name if names.count(file.name) == 1 else str(file)) for file in found]


def _inside(path: Path, split: str) -> list[Path]:
    if not path.exists():
        raise failure(str(path), "there is no such file or folder", "give a path that exists")
    if path.is_file():
        return [path]
    if (path / "dataset_dict.json").exists():
        if not (path / split / "state.json").exists():
            there = sorted(p.parent.name for p in path.glob("*/state.json"))
            raise failure(str(path), f"the saved set has no split {split!r}", f"it has {', '.join(there) or 'none'}")
        return [path / split]
    if (path / "state.json").exists():
        return [path]
    files = sorted(p for p in path.rglob("*") if p.is_file() and _plain_name(p).endswith(SUFFIXES))
    files = [p for p in files if not any(part.startswith(".") for part in p.relative_to(path).parts)]
    files = [p for p in files if not (p.suffix == ".json" and _is_index(p))]
    if not files:
        raise failure(str(path), f"the folder holds no {', '.join(SUFFIXES)} file", "give another path")
    return files


def _plain_name(path: Path) -> str:
    return path.name.lower().removesuffix(".gz")


def read(path: Path) -> Iterator[Record | Reject]:
    """Read any file row by row; raises a failure where it holds no row or cannot be read to its end."""
    number = 0
    for number, row in enumerate(reader(path)(path), start=1):  # noqa: B007 - counted for the line below
        yield row
    if not number:
        raise failure(f"{path}:1", "the file holds no rows", "give a file with rows")


def reader(path: Path) -> Reader:
    """Choose how to read a file, by its first bytes and then by its name."""
    if path.is_dir():
        return saved
    start = _start(path)
    if start.startswith(b"PAR1") or path.suffix.lower() == ".parquet":
        return parquet
    if _plain_name(path).endswith((".csv", ".tsv")):
        return table
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"["):
        return array
    if text and not text.startswith(b"{") and not _plain_name(path).endswith(SUFFIXES):
        raise failure(str(path), "this is no kind of file that holds rows", f"give one of {', '.join(SUFFIXES)}")
    if _plain_name(path).endswith(".json") and text.startswith(b"{"):
        _refuse_single_object(path)
    return jsonl.records


def _start(path: Path) -> bytes:
    with suppress(OSError, EOFError, zlib.error), opened(path) as stream:  # the reader will say what is wrong
        return stream.read(PIECE)
    return b""


def _refuse_single_object(path: Path) -> None:
    """Tell an index, or one object over many lines, from JSON lines in a `.json` file."""
    number, first = next(iter(lines(path)))
    with suppress(ValueError, RecursionError):
        if isinstance(json.loads(first), dict) and not _is_index(path):
            return
    if names := _indexed(path):
        raise failure(str(path), "this is an index of data sets, not data", f"give a file that it names: {names[0]}")
    raise failure(f"{path}:{number}", "the file is one JSON value, not rows", "give an array, or one object a line")


def _is_index(path: Path) -> bool:
    return bool(_indexed(path))


def _indexed(path: Path) -> list[str]:
    """The data sets that an index in LLaMA-Factory's form names; none where a file is no index."""
    if path.stat().st_size > LARGEST // 4:
        return []
    with suppress(ValueError, RecursionError, OSError):
        whole = json.loads(path.read_text(encoding="utf-8-sig"))
        if isinstance(whole, dict) and whole and all(isinstance(v, dict) and INDEX & set(v) for v in whole.values()):
            return [str(next(v[key] for key in v if key in INDEX)) for v in whole.values()]
    return []


def array(path: Path) -> Iterator[Record | Reject]:
    """Read a JSON array element by element, holding one piece of the file at a time."""
    decode = json.JSONDecoder().raw_decode
    text = _Pieces(path)
    text.skip(" \t\r\n\ufeff")
    text.take(1)  # the bracket
    while True:
        text.skip(" \t\r\n")
        if text.starts("]"):
            text.take(1)
            text.skip(" \t\r\n")
            if text.starts(""):
                raise unreadable(path, text.line, "something follows the end of the array", "remove it")
            return
        if not text.starts(""):
            raise unreadable(path, text.line, "the array ends too early", "fetch it again")
        value, end = text.decoded(decode)
        line = text.line
        text.take(end)
        text.skip(" \t\r\n")
        if text.starts(","):
            text.take(1)
        elif not text.starts("]"):
            raise unreadable(path, text.line, "the file is not JSON here (no comma after a row)", "mend it")
        if isinstance(value, dict):
            yield Record(path, line, value)
        else:
            yield Reject(path, line, "", "the element is not a JSON object", "an array of JSON objects")


class _Pieces:
    """A text file as a window that moves forward."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream = _decoded(path)
        self.text = ""
        self.at = 0
        self.line = 1

    def more(self, least: int = PIECE) -> bool:
        """Read on; false at the end of the file."""
        rest = self.text[self.at :]
        pieces: list[str] = []
        while sum(len(piece) for piece in pieces) < least and (piece := next(self.stream, "")):
            pieces.append(piece)
        self.text, self.at = rest + "".join(pieces), 0
        return bool(pieces)

    def starts(self, mark: str) -> bool:
        """Whether `mark` is next; the empty mark asks whether anything is."""
        while self.at >= len(self.text):
            if not self.more():
                return False
        return self.text.startswith(mark, self.at)

    def take(self, count: int) -> None:
        """Move on, counting lines."""
        self.line += self.text.count("\n", self.at, self.at + count)
        self.at += count

    def skip(self, blanks: str) -> None:
        """Move over blanks."""
        while self.starts("") and self.text[self.at] in blanks:
            self.take(1)

    def decoded(self, decode: Callable[[str, int], tuple[Any, int]]) -> tuple[Any, int]:
        """Decode the value that is next and tell how many characters it takes."""
        while True:
            try:
                value, end = decode(self.text, self.at)
                if end < len(self.text) or not self.more():
                    return value, end - self.at
            except json.JSONDecodeError as error:
                cut_off = error.msg.startswith("Unterminated") or error.pos >= len(self.text) - 12
                if len(self.text) - self.at > LARGEST:
                    raise unreadable(self.path, self.line, "a row does not end", "mend the file") from error
                if not cut_off or not self.more(len(self.text) - self.at):
                    line = self.line + self.text.count("\n", self.at, error.pos)
                    raise unreadable(self.path, line, f"the file is not JSON here ({error.msg})", "mend it") from error
            except (RecursionError, ValueError) as error:
                raise unreadable(self.path, self.line, "a row cannot be decoded", "mend the file") from error


def _decoded(path: Path) -> Iterator[str]:
    """Yield a file's text in pieces, whatever the length of its lines."""
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    for piece in _pieces(path):
        try:
            text = decoder.decode(piece)
        except UnicodeDecodeError as error:
            line += piece.count(b"\n", 0, max(0, error.start))
            raise unreadable(path, line, "the file is not UTF-8", "save it as UTF-8") from error
        line += text.count("\n")
        if text:
            yield text


def _pieces(path: Path) -> Iterator[bytes]:
    with jsonl.explained(path), opened(path) as stream:
        yield from iter(lambda: stream.read(PIECE), b"")


def table(path: Path) -> Iterator[Record | Reject]:
    """Read a CSV file with a header; the separator is the one of comma, tab and semicolon that the header has most."""
    csv.field_size_limit(CELL)
    text = (line for _, line in lines(path))
    first = next(text, "")
    separator = max(",\t;", key=first.count)
    rows = csv.reader(_with(first, text), delimiter=separator, strict=True)
    names: list[str] = []
    while True:
        line = rows.line_num + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error) or "field limit" in str(error) or not names:
                raise unreadable(path, line, f"a cell does not end ({error})", "mend its quotes") from error
            yield Reject(path, line, "", f"the line is not CSV ({error})", f"{len(names)} cells")
            continue
        if not names:
            names = cells
        elif len(cells) == len(names):
            yield Record(path, line, dict(zip(names, cells, strict=True)))
        elif cells:
            yield Reject(path, line, "", f"the row has {len(cells)} cells", f"{len(names)} cells, as the header has")


def _with(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def parquet(path: Path) -> Iterator[Record | Reject]:
    """Read a Parquet file a few rows at a time."""
    from pyarrow.parquet import ParquetFile

    def rows() -> Iterator[Mapping[str, Any]]:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=AT_ONCE):
                yield from batch.to_pylist()

    return _numbered(path, rows())


def saved(path: Path) -> Iterator[Record | Reject]:
    """Read a folder that `Dataset.save_to_disk` has written."""
    from datasets import load_from_disk

    def rows() -> Iterator[Mapping[str, Any]]:
        whole: Dataset = load_from_disk(str(path))
        for start in range(0, len(whole), AT_ONCE):
            yield from whole.select(range(start, min(start + AT_ONCE, len(whole)))).to_list()

    return _numbered(path, rows())


def _numbered(path: Path, rows: Iterator[Mapping[str, Any]]) -> Iterator[Record | Reject]:
    """Number rows; a library's complaint about the bytes becomes one sentence."""
    number = 0
    while True:
        try:
            found = list(islice(rows, AT_ONCE))
        except (Failure, KeyboardInterrupt, MemoryError):
            raise
        except Exception as error:  # pyarrow and datasets raise whatever the damage leads to
            reason = re.sub(r"\s+", " ", str(error))[:100]
            raise unreadable(path, number + 1, f"cannot be read ({reason})", "fetch it again") from error
        if not found:
            return
        for row in found:
            number += 1
            yield Record(path, number, dict(row))
