"""A JSONL file to which rows are appended one by one, and which survives a crash.

Each row is flushed to the disk before the next one is started, with its hash. After a crash all complete rows are read
back. An incomplete last line and a row that differs from its hash are left out, and those rows are computed again.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignlab.runtime.file_errors import explained_file_errors
from alignlab.runtime.files import digest, write_text
from alignlab.runtime.progress import say

HASH = "row_hash"  # the field of a stored row that holds the hash of the others


class Journal:
    """The rows of a JSONL file by one of their fields."""

    def __init__(self, path: Path, key: str = "id") -> None:
        self.path, self.key = path, key
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = read_complete_rows(path)
        self.rows: dict[str, dict[str, Any]] = {row[key]: row for row in rows if isinstance(row.get(key), str)}

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append the rows whose key is new, and flush them to the disk."""
        new = {row[self.key]: row for row in rows if row[self.key] not in self.rows}
        if not new:
            return
        with explained_file_errors(self.path.parent), self.path.open("a", encoding="utf-8") as stream:
            stream.write("".join(line(row | {HASH: digest(row)}) for row in new.values()))
            stream.flush()
            os.fsync(stream.fileno())
        self.rows |= new


def line(row: dict[str, Any]) -> str:
    """Return a row as one line of JSON."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_complete_rows(path: Path) -> list[dict[str, Any]]:
    """Read the complete and undamaged rows of a journal, and remove an incomplete last line from the file."""
    if not path.exists():
        return []
    with path.open("r+b") as stream:
        content = stream.read()
        end = content.rfind(b"\n") + 1
        stream.truncate(end)
    rows = {text: undamaged(text) for text in content[:end].splitlines(keepends=True)}
    if damaged := sum(row is None for row in rows.values()):
        say(f"{path}: {damaged:,} damaged rows; they are computed again")
        write_text(path, b"".join(text for text, row in rows.items() if row is not None).decode("utf-8"))
    return [row for row in rows.values() if row is not None]


def undamaged(text: bytes) -> dict[str, Any] | None:
    """Return the row of a line; None where the line is no JSON object, or differs from its hash."""
    try:
        row = json.loads(text)
        expected = row.pop(HASH, None)  # an earlier version wrote none
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None
    return row if expected in (None, digest(row)) else None  # a tuple: a damaged hash may be a list
