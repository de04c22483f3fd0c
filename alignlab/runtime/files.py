"""The cache folder, hashes, locks, and writes that leave either a whole file or none.

The cache holds base models, prepared data and finished stages. Each has a folder named after the hash of its inputs
(see `alignlab.runtime.cache`).
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignlab.errors import failure


def cache_root() -> Path:
    """Return the cache folder: $ALIGNLAB_CACHE, else $XDG_CACHE_HOME/alignlab, else ~/.cache/alignlab."""
    if folder := os.environ.get("ALIGNLAB_CACHE"):
        return Path(folder).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "alignlab"


def digest(*parts: Any) -> str:
    """Hash JSON-like values to 16 hexadecimal digits; the same values give the same digits on every machine."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_files(paths: Iterable[Path]) -> str:
    """Hash the contents of files, in the order given; a folder counts as its files in sorted order."""
    combined = hashlib.sha256()
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            with file.open("rb") as stream:
                combined.update(hashlib.file_digest(stream, "sha256").digest())
    return combined.hexdigest()[:16]


def partial_of(final: Path) -> Path:
    """Return the folder in which `final` is built."""
    return final.with_name(final.name + ".partial")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that belongs to `path`; waits while another process holds it."""
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise failure(str(path.parent), f"cannot be written ({error.strerror})", "set ALIGNLAB_CACHE") from error
    with FileLock(path.with_name(path.name + ".lock")):
        yield


WEIGHTS = (".safetensors", ".bin", ".pt")


def copy_sharing_weights(source: Path, target: Path) -> None:
    """Copy a folder in place of an earlier one; weights are hard links where the file system allows them."""
    partial = partial_of(target)
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, copy_function=link_or_copy)
    if target.is_symlink():
        target.unlink()
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def link_or_copy(source: str, target: str) -> None:
    """Make a hard link to a file of weights, where both lie on one file system; copy any other file."""
    if source.endswith(WEIGHTS):
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without hard links
            pass
    shutil.copyfile(source, target)


def write_text(path: Path, text: str) -> None:
    """Write a text file as a whole: a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        if is_disk_full(error):
            raise disk_full(path) from error
        raise


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Read the objects of a JSONL file; an empty list where there is no file.

    Only a line feed ends a line: texts may contain other characters at which `splitlines` splits.
    """
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]] if file.exists() else []


def sync(folder: Path) -> None:
    """Flush every file below a folder to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error says that a disk or a quota is full; native libraries say so only in the message."""
    return (isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}) or (
        "No space left on device" in str(error)
    )


def disk_full(path: Path) -> Exception:
    """Build the failure to raise when a disk is full."""
    return failure(str(path), "no space left on the disk", "free some, or set ALIGNLAB_CACHE to a larger disk")
