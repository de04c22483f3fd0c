"""Read JSON-lines files, plain or gzipped, one row at a time.

A file that cannot be read to its end (empty, truncated, not UTF-8) raises a failure, since the rows after the fault
are unknown. A line that is not a JSON object is yielded as a `Reject`.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from alignlab.data.rejects import Reject
from alignlab.errors import Failure, failure

SUFFIXES = (".jsonl", ".jsonl.gz")
LONGEST_LINE = 1 << 25  # bytes; a longer line is not text


class Record(NamedTuple):
    """One row: its file, the line on which it begins (from 1) and its fields."""

    file: Path
    line: int
    fields: dict[str, Any]


def list_files(paths: Sequence[Path]) -> list[Path]:
    """List the files at paths; a folder stands for its .jsonl and .jsonl.gz files in sorted order."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
            if not inside:
                raise failure(str(path), f"the folder holds no {' or '.join(SUFFIXES)} file", "give another path")
            files += inside
        elif path.exists():
            files.append(path)
        else:
            raise failure(str(path), "there is no such file or folder", "give a path that exists")
    return files


def read_records(file: Path) -> Iterator[Record | Reject]:
    """Yield the rows of a file; skip blank lines; raise a failure if the file is empty."""
    empty = True
    for number, text in read_lines(file):
        if not text.strip():
            continue
        empty = False
        try:
            value = DECODER.decode(text)
        except RepeatedField as error:
            yield Reject(file, number, str(error), "the field stands twice in one object", "one value for each field")
            continue
        except (ValueError, RecursionError) as error:
            if not text.endswith("\n") and text.lstrip().startswith(("{", "[")):
                raise read_failure(file, number, "the last line is cut off", "fetch the file again") from error
            yield Reject(file, number, "", "the line is not JSON", "one JSON object a line")
            continue
        if (fields := fields_in(value)) is not None:
            yield Record(file, number, fields)
        else:
            yield Reject(file, number, "", "the line is not a JSON object", "one JSON object a line")
    if empty:
        raise failure(f"{file}:1", "the file is empty", "give a file with one JSON object a line")


class RepeatedField(ValueError):
    """A JSON object that has a field twice; the message is its name."""


def unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a JSON object; raise a RepeatedField if one stands twice."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepeatedField(next(name for name in names if names.count(name) > 1)[:40])
    return fields


DECODER = json.JSONDecoder(object_pairs_hook=unique_fields)


def fields_in(value: Any) -> dict[str, Any] | None:
    """Return the fields of a row: those of an object, or a list of turns as `messages`; None for anything else."""
    if isinstance(value, dict):
        return value
    return {"messages": value} if isinstance(value, list) and value and isinstance(value[0], dict) else None


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a plain or gzipped file; raise a failure that names the line."""
    number = 0
    with explain_read_errors(file, lambda: number), open_bytes(file) as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), b""), start=1):
            if len(line) == LONGEST_LINE:
                what = f"the line is longer than {LONGEST_LINE:,} bytes"
                raise read_failure(file, number, what, "split it into rows")
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")


@contextmanager
def explain_read_errors(file: Path, last_line: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Turn an error while reading into a failure that names the file and the line."""
    try:
        yield
    except UnicodeDecodeError as error:
        what = f"byte {error.start + 1} of the line is not UTF-8"
        raise read_failure(file, last_line(), what, "save it as UTF-8") from error
    except EOFError as error:
        raise read_failure(file, last_line() + 1, "the gzip file ends too early", "fetch it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise read_failure(file, last_line() + 1, "the gzip file is damaged", "fetch it again") from error
    except OSError as error:
        raise read_failure(file, last_line() + 1, f"cannot be read ({error.strerror})", "check the file") from error


@contextmanager
def open_bytes(file: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes; decompress it if its first two bytes or its suffix are gzip's."""
    with file.open("rb") as plain:
        gzipped = plain.read(2) == b"\x1f\x8b" or file.suffix == ".gz"
        plain.seek(0)
        if not gzipped:
            yield plain
            return
        with gzip.GzipFile(fileobj=plain) as stream:
            yield cast(BinaryIO, stream)


def read_failure(file: Path, line: int, what: str, now: str) -> Failure:
    """Return the failure of a file that cannot be read to its end."""
    return failure(f"{file}:{line}", what, now)
