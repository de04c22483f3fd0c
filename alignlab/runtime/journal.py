"""A record that grows line by line and outlives the process that writes it.

A row is on the disk before the next one is begun. A run that was killed finds all rows that were written whole; a last
line that was cut short is taken away, and its row is made again.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignlab.errors import failure
from alignlab.runtime.files import is_full, no_room


class Journal:
    """Rows of a JSONL file by their `id`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: dict[str, dict[str, Any]] = {row["id"]: row for row in whole_rows(path)}

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write rows that are not there yet to the end, and see them onto the disk."""
        new = {row["id"]: row for row in rows if row["id"] not in self.rows}
        if not new:
            return
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("".join(map(line, new.values())))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            raise no_room(self.path) if is_full(error) else error from error
        self.rows |= new


def line(row: dict[str, Any]) -> str:
    """A row as it is written."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def whole_rows(path: Path) -> list[dict[str, Any]]:
    """The rows that were written to their end; what stands behind the last of them is cut off."""
    if not path.exists():
        return []
    with path.open("r+b") as stream:
        whole = stream.read()
        end = whole.rfind(b"\n") + 1
        stream.truncate(end)
    try:
        return [json.loads(text) for text in whole[:end].decode("utf-8").split("\n")[:-1]]
    except ValueError as error:
        raise failure(str(path), f"is damaged ({error})", "remove it; what it recorded is made again") from error
