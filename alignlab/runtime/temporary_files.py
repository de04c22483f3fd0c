"""Temporary files in one folder per process, which the next run removes where a kill left it.

Libraries make temporary folders when they are imported, W&B among them. A process that is killed cannot remove them.
The folder's lock is held for as long as the process lives, so a folder whose lock is free has no owner.
"""

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "alignlab-run-"
LOCK = ".lock"
LONGEST = 50  # characters of the parent's path: sockets are made below it, whose paths have at most 107

_folder: list[Path] = []  # of this process


@contextmanager
def temporary_files() -> Iterator[None]:
    """Let this process and its children make their temporary files in a folder that is removed when it exits."""
    before, parent = os.environ.get("TMPDIR"), Path(tempfile.gettempdir())
    if len(str(parent)) > LONGEST:
        yield
        return
    remove_abandoned(parent)
    if not _folder or not _folder[0].is_dir():
        _folder[:] = [make_locked(parent)]
    tempfile.tempdir = os.environ["TMPDIR"] = str(_folder[0])
    try:
        yield
    finally:
        tempfile.tempdir = None
        os.environ.pop("TMPDIR", None)
        if before is not None:
            os.environ["TMPDIR"] = before


def make_locked(parent: Path) -> Path:
    """Make a temporary folder, lock it, and only then give it the name under which others look for it."""
    unlocked = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))
    descriptor = os.open(unlocked / LOCK, os.O_CREAT | os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # until the process exits
    folder = unlocked.rename(parent / unlocked.name.removeprefix("."))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of processes that were killed."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or removed by another run
            descriptor = os.open(folder / LOCK, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)
