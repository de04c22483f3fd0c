"""A manifest of a folder: the size and the SHA-256 of each file, by which damage is found before the folder is used.

The manifest is written last. It holds a hash of itself, so that a damaged manifest counts as none. A link is followed:
its target is what is used. Files that are added later are not covered.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.runtime.files import digest, write_text

MANIFEST = "manifest.json"
SEAL = ".sha256"  # ending of the file that holds the hash of a single file


class Entry(NamedTuple):
    """The size of a file in bytes, and its SHA-256."""

    size: int
    sha256: str


def write(folder: Path, name: str = MANIFEST, skip: str = "", **facts: Any) -> None:
    """Write the manifest of a folder, with more facts to keep; the folder `skip` in it is left out."""
    paths = [path for path in files(folder, name) if not skip or path.relative_to(folder).parts[0] != skip]
    with ThreadPoolExecutor(max(1, min(4, (os.cpu_count() or 1) // 2))) as threads:
        hashes = list(threads.map(sha256, paths))
    entries = {
        str(path.relative_to(folder)): Entry(path.stat().st_size, content)
        for path, content in zip(paths, hashes, strict=True)
    }
    record = facts | {"files": entries}
    write_text(folder / name, json.dumps(record | {"hash": digest(record)}, indent=1))


def files(folder: Path, name: str = MANIFEST) -> list[Path]:
    """Return the files of a folder and its subfolders, without the manifest, in sorted order."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / name)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read(folder: Path, name: str = MANIFEST) -> dict[str, Any]:
    """Return the manifest of a folder; empty where there is none, or a damaged one."""
    try:
        record = json.loads((folder / name).read_text(encoding="utf-8"))
        hash_of_record = record.pop("hash")
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        return {}
    return record if hash_of_record == digest(record) else {}


def entries(folder: Path, name: str = MANIFEST) -> dict[str, Entry]:
    """Return what the manifest says of each file; empty where there is no manifest."""
    return {file: Entry(*entry) for file, entry in read(folder, name).get("files", {}).items()}


def fault(folder: Path, name: str = MANIFEST, contents: bool = True) -> str | None:
    """Return what is wrong with the first damaged file of a folder; None where there is none.

    Without `contents` only the sizes are compared.
    """
    expected = entries(folder, name)
    return next(faults(folder, expected, contents), None) if expected else f"{name} is missing or damaged"


def faults(folder: Path, expected: dict[str, Entry], contents: bool) -> Iterator[str]:
    """Yield what is wrong with each file that differs from its entry; sizes are compared before contents."""
    for file, entry in expected.items():
        if (size := size_of(folder / file)) != entry.size:
            yield f"{file} is missing" if size is None else f"{file} has {size:,} bytes of {entry.size:,}"
    for file, entry in expected.items() if contents else ():
        try:
            if sha256(folder / file) != entry.sha256:
                yield f"the content of {file} has changed"
        except OSError as error:
            yield f"{file} cannot be read ({error.strerror})"


def size_of(path: Path) -> int | None:
    """Return the size of a file in bytes; None where there is no file."""
    return path.stat().st_size if path.is_file() else None


def write_sealed(file: Path, text: str) -> None:
    """Write a text file, and then its hash beside it."""
    write_text(file, text)
    write_text(file.with_name(file.name + SEAL), sha256(file))


def is_sealed(file: Path) -> bool:
    """Return whether a file is there and has the content that its hash was computed of."""
    try:
        return file.with_name(file.name + SEAL).read_text(encoding="utf-8") == sha256(file)
    except (OSError, ValueError):
        return False
