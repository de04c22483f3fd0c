"""Finished folders of the cache: built under a lock, and verified by their manifest before they are used.

A folder under its final name is finished: it is built in `<name>.partial`, flushed to the disk, listed in a manifest
and then renamed. A process verifies the contents of a folder the first time that it uses it. A folder with weights is
verified once per machine; after that, sizes and times of change are compared. A damaged folder is reported in one line
and made again. A finished folder needs no permission to write.
"""

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from alignlab.errors import Failure, failure
from alignlab.runtime import manifest
from alignlab.runtime.file_errors import explained_file_errors
from alignlab.runtime.files import (
    WEIGHTS,
    cache_root,
    digest,
    locked,
    partial_of,
    sync,
    write_text,
)
from alignlab.runtime.progress import say

CHECKPOINTS = "checkpoints"  # of a stage; they have records of their own, and are removed when the stage is finished

_faults: dict[Path, tuple[str, str | None]] = {}  # the state of each folder that was verified, and its fault


def is_intact(folder: Path) -> bool:
    """Return whether a finished folder exists and holds what was written there."""
    return folder.is_dir() and fault(folder) is None


def fault(folder: Path) -> str | None:
    """Return what is wrong with a finished folder; None where nothing is."""
    expected = manifest.entries(folder)
    state = digest(expected, [state_of(folder / name) for name in expected])
    known, result = _faults.get(folder, ("", None))
    if known == state:
        return result
    record = cache_root() / "verified" / platform.node() / f"{folder.parent.name}-{folder.name}"
    has_weights = any(name.endswith(WEIGHTS) for name in expected)
    if has_weights and is_recorded(record, state):
        return None
    result = manifest.fault(folder)
    _faults[folder] = state, result
    if has_weights and result is None:
        with suppress(OSError, Failure):  # the cache may be another user's
            write_text(record, state)
    return result


def state_of(path: Path) -> tuple[int, int] | None:
    """Return the size of a file and the time of its last change; None where there is no file."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns


def is_recorded(record: Path, state: str) -> bool:
    """Return whether a folder was verified on this machine in this state."""
    try:
        return record.read_text(encoding="utf-8") == state
    except (OSError, ValueError):
        return False


@contextmanager
def building(final: Path, *, keep_partial: bool = False) -> Iterator[Path | None]:
    """Build the folder `final` under a lock; yields the folder to fill, or None where `final` is intact.

    On success the folder is synced and renamed to `final`. On an error it is removed, unless `keep_partial`: a stage
    keeps its checkpoints, so that the next run resumes from them. A damaged `final` is removed and built again.
    """
    if is_intact(final):
        yield None
        return
    with locked(final):
        if is_intact(final):
            yield None
            return
        discard(final)
        partial = partial_of(final)
        if partial.exists() and not keep_partial:
            shutil.rmtree(partial)
        try:
            with explained_file_errors(partial):
                partial.mkdir(parents=True, exist_ok=True)
                yield partial
                finish(partial)
                partial.rename(final)
        except BaseException:
            if not keep_partial:
                shutil.rmtree(partial, ignore_errors=True)
            raise


def discard(final: Path) -> None:
    """Remove a damaged folder, and say so."""
    if not final.exists():
        return
    say(f"{final}: {fault(final)}; it is made again")
    try:
        shutil.rmtree(final)
    except OSError as error:
        now = "let its owner remove it, or set ALIGNLAB_CACHE to another folder"
        raise failure(str(final), f"{fault(final)}, and it cannot be removed ({error.strerror})", now) from error


def check_links(folder: Path) -> None:
    """Raise a `Failure` where a downloaded file that a folder links to has changed, since it would be linked again."""
    for name, entry in manifest.entries(folder).items():
        if (folder / name).is_symlink() and next(manifest.faults(folder, {name: entry}, contents=True), None):
            target = (folder / name).resolve()
            if target.exists():
                now = "remove it; the next run downloads it again"
                raise failure(str(target), "its content has changed since it was downloaded", now)


def finish(partial: Path) -> None:
    """Give a folder's files the permissions of the user's umask, flush them to the disk, and write the manifest."""
    os.umask(mask := os.umask(0o077))
    for path in manifest.files(partial):
        if not path.is_symlink() and path.stat().st_mode & 0o666 != 0o666 & ~mask:
            path.chmod(0o666 & ~mask)  # safetensors and temporary files give theirs to their owner alone
    sync(partial)
    manifest.write(partial, skip=CHECKPOINTS)
