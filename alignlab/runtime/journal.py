"""A JSONL file to which rows are appended one by one, and which survives a crash.

Each row is flushed to the disk before the next one is started. After a crash all complete rows are read back. An
incomplete last line is removed, and its row is computed again.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignlab.errors import failure
from alignlab.runtime.files import disk_full, is_disk_full


class Journal:
    """The rows of a JSONL file by one of their fields."""

    def __init__(self, path: Path, key: str = "id") -> None:
        self.path, self.key = path, key
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: dict[str, dict[str, Any]] = {row[key]: row for row in read_complete_rows(path)}

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append the rows whose key is new, and flush them to the disk."""
        new = {row[self.key]: row for row in rows if row[self.key] not in self.rows}
        if not new:
            return
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("".join(map(line, new.values())))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise disk_full(self.path) if is_disk_full(error) else error from error
        self.rows |= new


def line(row: dict[str, Any]) -> str:
    """Return a row as one line of JSON."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_complete_rows(path: Path) -> list[dict[str, Any]]:
    """Read the complete rows of a journal, and remove an incomplete last line from the file."""
    if not path.exists():
        return []
    with path.open("r+b") as stream:
        content = stream.read()
        end = content.rfind(b"\n") + 1
        stream.truncate(end)
    try:
        return [json.loads(text) for text in content[:end].decode("utf-8").split("\n")[:-1]]
    except ValueError as error:
        raise failure(str(path), f"is damaged ({error})", "remove it; its rows are computed again") from error
