"""The size of a view: its rows and their characters, kept in the cache, since a plan reads no row.

An entry is found by the hash of the rows, of the settings and of the code that builds the view. A damaged entry counts
as none.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config import extensions
from alignlab.config.dataset import DataSettings
from alignlab.data import content, module_name, view
from alignlab.runtime import manifest
from alignlab.runtime.files import cache_root, digest
from alignlab.runtime.source_hash import hash_with_imports

SAMPLE = 200  # rows whose characters are counted


class ViewSize(NamedTuple):
    """The number of rows, and the mean number of characters of the first rows."""

    rows: int
    characters: float


def view_size(dataset: DataSettings, name: str, split: str) -> ViewSize:
    """Return the size of a view of a split; raise what `alignlab.data.view` raises where there is none."""
    file = place(dataset, name, split)
    if (known := read(file)) is not None:
        return known
    rows = view(dataset, name, split)
    sample = rows.select(range(min(SAMPLE, len(rows))))
    characters = sum(count_characters(value) for row in sample for value in row.values())
    size = ViewSize(len(rows), characters / max(1, len(sample)))
    with suppress(OSError):  # a cache that only its owner may write
        manifest.write_sealed(file, json.dumps(size))
    return size


def place(dataset: DataSettings, name: str, split: str) -> Path:
    """Return the file of an entry."""
    code = [hash_with_imports(module) for module in (module_name(dataset), extensions.name_of("views", name), __name__)]
    return (
        cache_root() / "views" / f"{digest(content(dataset), dataset.model_dump(mode='json'), code, name, split)}.json"
    )


def read(file: Path) -> ViewSize | None:
    """Read an entry; None where it is absent or damaged."""
    return ViewSize(*json.loads(file.read_text(encoding="utf-8"))) if manifest.is_sealed(file) else None


def count_characters(value: Any) -> int:
    """Return the characters of a text, or of the turns of a list."""
    if isinstance(value, list):
        return sum(count_characters(turn["content"]) if isinstance(turn, dict) else 0 for turn in value)
    return len(value) if isinstance(value, str) else 0
