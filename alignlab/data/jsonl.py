"""Rows from JSON-lines files, plain or gzipped, one at a time, and an account of those that are broken.

A file that cannot be read to its end (empty, cut short, not UTF-8) always stops the run: what follows the fault
is unknown. A row that can be read and is not what it should be is a `Reject`: it is left out and counted, or it
stops the run where `dataset.on_broken=stop`. Nothing is repaired without being counted.
"""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

from alignlab.errors import Failure, failure

SUFFIXES = (".jsonl", ".jsonl.gz")
LONGEST = 1 << 25  # bytes of a line; what is longer is no line of text
MOST_REJECTS = 100_000  # more broken rows than these end the run at once, whatever share of the rows they are


class Record(NamedTuple):
    """One row: the file, the line it begins on (from 1) and its fields."""

    file: Path
    line: int
    fields: dict[str, Any]


class Reject(NamedTuple):
    """A row that is left out: where it stands, the field at fault, why, and what would have been right."""

    file: Path
    line: int
    field: str
    reason: str
    expected: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (f"{self.file}:{self.line}", self.field, self.reason) if part)


class Account:
    """What became of the rows of one file set: how many were kept, which were left out, what was made to fit."""

    def __init__(self, on_broken: Literal["reject", "stop"], max_rejects: float) -> None:
        self.on_broken = on_broken
        self.max_rejects = max_rejects
        self.kept = 0
        self.rejects: list[Reject] = []
        self.notes: Counter[str] = Counter()

    def reject(self, broken: Reject) -> None:
        """Count a broken row, or stop at it."""
        if self.on_broken == "stop":
            raise failure(str(broken), "this row is broken", "mend it, or set dataset.on_broken=reject to leave it out")
        self.rejects.append(broken)
        if len(self.rejects) > MOST_REJECTS:
            self.close()

    def close(self) -> None:
        """Raise a failure where too many rows were left out, or none was kept."""
        seen = self.kept + len(self.rejects)
        few = len(self.rejects) <= MOST_REJECTS
        if not self.rejects or (few and self.kept and len(self.rejects) <= self.max_rejects * seen):
            return
        raise failure(
            str(self.rejects[0]),
            f"{len(self.rejects):,} of {seen:,} rows are broken, this one first",
            f"mend them, or allow more with dataset.max_rejects (now {self.max_rejects:g})",
        )


def files(paths: Sequence[Path]) -> list[Path]:
    """List the files behind paths: a file is itself, a folder its .jsonl and .jsonl.gz files in sorted order."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
            if not inside:
                raise failure(str(path), f"the folder holds no {' or '.join(SUFFIXES)} file", "give another path")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise failure(str(path), "there is no such file or folder", "give a path that exists")
    return found


def records(file: Path) -> Iterator[Record | Reject]:
    """Read a file row by row; blank lines are skipped."""
    empty = True
    for number, text in lines(file):
        if not text.strip():
            continue
        empty = False
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            yield Reject(file, number, "", "the line is not JSON", "one JSON object a line")
            continue
        if isinstance(value, dict):
            yield Record(file, number, value)
        else:
            yield Reject(file, number, "", "the line is not a JSON object", "one JSON object a line")
    if empty:
        raise failure(f"{file}:1", "the file is empty", "give a file with one JSON object a line")


def lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a plain or gzipped file with their numbers; raise a failure that names the line."""
    number = 0
    with explained(file, lambda: number), opened(file) as stream:
        for number, line in enumerate(iter(lambda: stream.readline(LONGEST), b""), start=1):
            if len(line) == LONGEST:
                raise unreadable(file, number, f"the line is longer than {LONGEST:,} bytes", "cut it into rows")
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")


@contextmanager
def explained(file: Path, number: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Turn what goes wrong while a file is read into a failure that names it; `number` is the last line read."""
    try:
        yield
    except UnicodeDecodeError as error:
        place = f"byte {error.start + 1} of the line is not UTF-8"
        raise unreadable(file, number(), place, "save it as UTF-8") from error
    except EOFError as error:
        raise unreadable(file, number() + 1, "the gzip file ends too early", "fetch it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise unreadable(file, number() + 1, "the gzip file is damaged", "fetch it again") from error
    except OSError as error:
        raise unreadable(file, number() + 1, f"cannot be read ({error.strerror})", "check the file") from error


@contextmanager
def opened(file: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, through gzip where its first two bytes or its name say so."""
    with file.open("rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b" or file.suffix == ".gz"
        plain.seek(0)
        if not packed:
            yield plain
            return
        with gzip.GzipFile(fileobj=plain) as stream:
            yield cast(BinaryIO, stream)


def unreadable(file: Path, line: int, what: str, now: str) -> Failure:
    """Make the failure of a file that cannot be read to its end."""
    return failure(f"{file}:{line}", what, now)
