"""The registry: the models that were put into service, which one is in service, and every decision that led there.

    registry.jsonl       one `Entry` per decision and rollback, appended and never changed, each with its hash
    current.json         the `Pointer` to the model in service, replaced as a whole
    models/<version>/    the files of a model; weights are hard links where the file system allows them

A promotion copies the model, appends its entry, and then moves the pointer. The entry decides: after a crash between
the last two, the next writer moves the pointer. One writer works at a time (a file lock). Readers, such as a server
that follows the registry, read the pointer alone and need no lock.
"""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from alignlab.errors import Explained, failure, mistake
from alignlab.pipeline.run_folder import read_json, write_json
from alignlab.runtime.files import copy_sharing_weights, digest, digest_files, locked, remove_torn_line, sync
from alignlab.runtime.journal import HASH, line, undamaged

LOG, POINTER, MODELS = "registry.jsonl", "current.json", "models"


class Pointer(TypedDict):
    """The model in service: its version, its folder within the registry, and the hash of its files."""

    version: int
    model: str
    fingerprint: str


class Entry(TypedDict):
    """A decision: `previous` is the version in service before it, `version` the one after it.

    `facts` holds what led there: the candidate, its lineage, the evaluation and the decision.
    """

    number: int
    time: float
    action: Literal["promoted", "refused", "rolled back"]
    previous: int | None
    version: int | None
    model: NotRequired[Pointer]
    facts: dict[str, Any]


class Registry:
    """A registry in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def current(self) -> Pointer | None:
        """Read which model is in service; None where there is none yet. Raises a `Failure` for a damaged file."""
        if not (self.folder / POINTER).exists():
            return None
        pointer: Any = read_json(self.folder / POINTER)
        if not (isinstance(pointer, dict) and Pointer.__required_keys__ <= pointer.keys()):
            raise failure(
                str(self.folder / POINTER), "names no model", "name the version to serve: task=rollback task.version=…"
            )
        return cast(Pointer, pointer)

    def points_to(self, pointer: Pointer) -> bool:
        """Return whether a model is in service; a damaged pointer names none."""
        try:
            return self.current() == pointer
        except Explained:
            return False

    def model_folder(self, pointer: Pointer) -> Path:
        """Return the folder of a model's files."""
        return self.folder / pointer["model"]

    def entries(self) -> list[Entry]:
        """Read all entries; a last line that a crash cut short is left out. Raises a `Failure` for a damaged one."""
        file = self.folder / LOG
        complete = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
        return [read_entry(f"{file}:{number}", text) for number, text in enumerate(complete, 1)]

    def promote(self, model: Path, facts: dict[str, Any], expected: int | None) -> Pointer:
        """Put a model into service as a new version; return the pointer to it.

        Raises a `Failure` where another version than `expected`, which the model was compared with, is in service.
        """
        with self.writing() as entries:
            in_service = version_of(self.current())
            if in_service != expected:
                what = f"version {in_service} is in service, and the candidate was compared with version {expected}"
                raise failure(str(self.folder), what, "give the same command again: replies are cached")
            version = 1 + max((entry["model"]["version"] for entry in entries if "model" in entry), default=0)
            target = self.folder / MODELS / str(version)
            copy_sharing_weights(model, target)
            sync(target)
            pointer: Pointer = {
                "version": version,
                "model": f"{MODELS}/{version}",
                "fingerprint": digest_files([target]),
            }
            self.append(entries, "promoted", pointer, facts)
        return pointer

    def refuse(self, facts: dict[str, Any]) -> None:
        """Record a decision against a candidate."""
        with self.writing() as entries:
            self.append(entries, "refused", None, facts)

    def rollback(self, version: int | None) -> Pointer:
        """Put an earlier version back into service, by default the one before; return the pointer to it."""
        without_lock: AbstractContextManager[list[Entry]] = nullcontext([])  # the lock would create the folder
        with self.writing() if (self.folder / LOG).exists() else without_lock as entries:
            models = {entry["model"]["version"]: entry["model"] for entry in entries if "model" in entry}
            chosen = previous_version(entries) if version is None else version
            if chosen not in models:
                known = f"there are {', '.join(map(str, models))}" if models else "promote a model first"
                what = "no earlier version was in service" if chosen is None else f"there is no version {chosen}"
                raise mistake("task.version", what, known)
            pointer = models[chosen]
            if not self.model_folder(pointer).is_dir():
                raise failure(str(self.model_folder(pointer)), "is not there", "choose another with task.version=…")
            self.append(entries, "rolled back", pointer, {})
        return pointer

    @contextmanager
    def writing(self) -> Iterator[list[Entry]]:
        """Hold the registry's lock and give its entries; what a crash has left is put right first."""
        with locked(self.folder / LOG, "give a folder that you may write: task.registry=…"):
            remove_torn_line(self.folder / LOG)
            entries = self.entries()
            switches = [entry["model"] for entry in entries if "model" in entry]
            if switches and not self.points_to(switches[-1]):
                write_json(self.folder / POINTER, switches[-1])
            yield entries

    def append(
        self,
        entries: list[Entry],
        action: Literal["promoted", "refused", "rolled back"],
        pointer: Pointer | None,
        facts: dict[str, Any],
    ) -> None:
        """Append an entry and flush it to the disk; then move the pointer, where the entry has one."""
        previous = version_of(self.current())
        entry: Entry = {
            "number": len(entries) + 1,
            "time": time.time(),
            "action": action,
            "previous": previous,
            "version": pointer["version"] if pointer else previous,
            "facts": facts,
        }
        if pointer:
            entry["model"] = pointer
        with (self.folder / LOG).open("a", encoding="utf-8") as stream:
            stream.write(line({**entry, HASH: digest(entry)}))
            stream.flush()
            os.fsync(stream.fileno())
        if pointer:
            write_json(self.folder / POINTER, pointer)


def entry_of(model: Path) -> Entry | None:
    """Return the entry that put a folder of a registry into service; None where the folder is in no registry."""
    name = f"{model.parent.name}/{model.name}"
    promoted = (entry for entry in Registry(model.parent.parent).entries() if entry["action"] == "promoted")
    return next((entry for entry in promoted if entry["model"]["model"] == name), None)


def read_entry(place: str, text: bytes) -> Entry:
    """Read an entry; raise a `Failure` where it differs from its hash."""
    row: Any = undamaged(text)
    if row is None:
        raise failure(place, "is damaged", "restore the file from a backup")
    entry: Entry = row
    return entry


def version_of(pointer: Pointer | None) -> int | None:
    """Return the version of a pointer."""
    return pointer["version"] if pointer else None


def previous_version(entries: list[Entry]) -> int | None:
    """Return the version that the current one replaced when it was promoted; None where there was none."""
    switches = [entry for entry in entries if "model" in entry]
    if not switches:
        return None
    current = switches[-1]["version"]
    promoted = next(entry for entry in switches if entry["version"] == current)
    return promoted["previous"]
