"""Explain errors of the file system in one sentence: a full disk, no permission, a folder that was removed.

Python's errors hold a number; those of native libraries (torch, safetensors, tokenizers, SQLite) only a text.
"""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignlab.errors import Explained, Failure, failure
from alignlab.runtime.files import cache_root

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
TEXTS = {  # of native libraries
    "No space left on device": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "unexpected pos": errno.ENOSPC,  # of torch.save
    "PytorchStreamWriter failed": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "File too large": errno.EFBIG,
    "Read-only file system": errno.EROFS,
    "attempt to write a readonly database": errno.EROFS,
    "Permission denied": errno.EACCES,
    "No such file or directory": errno.ENOENT,
    "Parent directory": errno.ENOENT,
}
NATIVE = ("RuntimeError", "SafetensorError", "Exception", "OperationalError")  # torch, tokenizers, SQLite


def number_of(error: BaseException) -> int | None:
    """Return the number of an error of the file system; None for other errors."""
    if isinstance(error, OSError) and not isinstance(error, shutil.Error):
        return None if isinstance(error, ConnectionError) else error.errno
    if not isinstance(error, shutil.Error) and type(error).__name__ not in NATIVE:
        return None
    return next((number for text, number in TEXTS.items() if text in str(error)), None)


def explain(error: BaseException, folder: Path) -> Failure | None:
    """Build the failure that explains an error of the file system met in `folder`; None for other errors."""
    number = number_of(error)
    place = file_of(error) or folder
    if number in FULL:
        return failure(
            str(place), "no space left on the disk", f"free some, or set {variable_of(place)} to a larger disk"
        )
    if number in REFUSED:
        what = f"cannot be used ({os.strerror(number or 0)})"
        return failure(str(place), what, f"change its permissions, or set {variable_of(place)} to another folder")
    if number == errno.ENOENT and not folder.exists():
        return failure(str(folder), "was removed during the run", "run the command again; finished stages are cached")
    return None


def file_of(error: BaseException) -> Path | None:
    """Return the file that an error names, for a copy its target; None where it names none."""
    if isinstance(error, shutil.Error):  # of a copied folder: a list of source, target and message
        failed = error.args[0]
        return Path(failed[0][1]).absolute() if isinstance(failed, list) and isinstance(failed[0], tuple) else None
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename2, error.filename) if isinstance(name, str | Path)]
        return Path(names[0]).absolute() if names else None
    named = re.search(r'at path "([^"]+)"', str(error))
    return Path(named[1]) if named else None


def variable_of(place: Path) -> str:
    """Return the environment variable that moves a file or folder to another disk."""
    folders = {"ALIGNLAB_CACHE": cache_root(), "TMPDIR": Path(tempfile.gettempdir())}
    runs = {"ALIGNLAB_OUTPUTS": "outputs", "ALIGNLAB_MULTIRUN": "multirun"}
    folders |= {name: Path(os.environ.get(name, folder)).absolute() for name, folder in runs.items()}
    holding = {len(folder.parts): name for name, folder in folders.items() if place.absolute().is_relative_to(folder)}
    return holding[max(holding)] if holding else "ALIGNLAB_OUTPUTS"


@contextmanager
def explained_file_errors(folder: Path) -> Iterator[None]:
    """Raise a `Failure` for an error of the file system; `folder` is the one that the block writes to."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, Explained) and (explained := explain(error, folder)):
            raise explained from error
        raise
