"""The cache folder, hashes, locks, and writes that leave either a whole file or none.

The cache holds base models, prepared data and finished stages. Each has a folder named after the hash of its inputs
(see `alignlab.runtime.cache`).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alignlab.config.settings import path_in_home
from alignlab.errors import failure, mistake


def cache_root() -> Path:
    """Return the cache folder: $ALIGNLAB_CACHE, else $XDG_CACHE_HOME/alignlab, else ~/.cache/alignlab."""
    if folder := os.environ.get("ALIGNLAB_CACHE"):
        return path_in_home(Path(folder)).absolute()
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder).absolute() / "alignlab"
    try:
        return Path.home().absolute() / ".cache" / "alignlab"
    except RuntimeError:  # neither HOME nor an entry for this user
        raise mistake("ALIGNLAB_CACHE", "is not set, and this user has no home folder", "set it to a folder") from None


def ensure_home() -> None:
    """Give a user without a home folder and a name, as in many containers, the cache and the user's number.

    Libraries look for both.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(cache_root())
        os.environ.setdefault("USER", str(os.getuid()))


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
    """Return the path at which `final` is built before it is renamed."""
    return final.with_name(final.name + ".partial")


@contextmanager
def locked(path: Path, now: str = "set ALIGNLAB_CACHE") -> Iterator[None]:
    """Hold the lock that belongs to `path`; waits while another process holds it. `now` is what an error advises."""
    from filelock import FileLock

    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise failure(str(path.parent), f"cannot be written ({error.strerror})", now) from error
    try:
        yield
    finally:
        lock.release()


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
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        error.filename = str(path)  # a write names no file, and the partial one is of no interest
        raise


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Read the objects of a JSONL file; an empty list where there is no file. A last line without its end is left out.

    Only a line feed ends a line: texts may contain other characters at which `splitlines` splits.
    """
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return [read_object(f"{file}:{number}", line) for number, line in enumerate(lines, 1)]


def read_object(place: str, line: bytes) -> dict[str, Any]:
    """Read a JSON object; raise a failure that names its place where it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise failure(place, f"is not JSON ({str(error)[:80]})", "remove the line, or run the command again") from error
    if not isinstance(value, dict):
        raise failure(place, "is no JSON object", "remove the line, or run the command again")
    return value


def read_json(file: Path, now: str = "run the command again") -> Any:
    """Read a JSON file that exists; raise a failure that names it, and says what to do, where it holds none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise failure(str(file), f"is not JSON ({str(error)[:80]})", now) from error


def require_fields(file: Path, fields: set[str], rows: Any) -> None:
    """Raise a failure where the rows of a file are not objects with all the fields."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) and fields <= row.keys() for row in rows):
        raise failure(str(file), f"holds no rows with {', '.join(sorted(fields))}", "run the command again")


def remove_torn_line(file: Path) -> None:
    """Remove a last line without its end, which a full disk or a crash leaves."""
    if not file.is_file():
        return
    content = file.read_bytes()
    if (end := content.rfind(b"\n") + 1) < len(content):
        os.truncate(file, end)


def sync(folder: Path) -> None:
    """Flush every file below a folder to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
