"""The index of all runs: the folders of runs and sweeps below a few roots.

A run is read again only where one of its files has another size or time than before. Everything here tolerates what a
folder may hold while it is written, after it was deleted, and where another version has written it. A run is named by
its root and its path below it. Requests look names up in the index, so that no request reaches another path.
"""

import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from alignlab.pipeline.run_folder import CONFIG, PLAN
from alignlab.pipeline.sweep_folder import FACTS, OUTCOME
from alignlab.reports.run_results import is_share, value_text
from alignlab.runtime.run_files import METRICS, RESULT

DEPTH = 5  # of folders below a root
FRESH = 0.5  # seconds for which an index counts as current
SILENT = 600.0  # seconds without a change after which an unfinished run is no longer called running
MOST = 64_000_000  # bytes of a file that is read; a larger file is named on the run's page
RUN_FILES = (CONFIG, PLAN, RESULT)
CHOICE = re.compile(r"^- override /([\w/]+): (\S+)$", re.MULTILINE)
SEED = re.compile(r"^seed: (-?\d+)$", re.MULTILINE)

Signature = tuple[Any, ...]


class Value(NamedTuple):
    """A measure of a run's last model, and that of the base model where it was measured; a `share` is in percent."""

    value: float
    base: float | None
    share: bool

    @property
    def text(self) -> str:
        """Return the value of the last model as text."""
        return value_text(self.value, self.share)

    @property
    def base_text(self) -> str:
        """Return the value of the base model as text; empty where it was not measured."""
        return "" if self.base is None else value_text(self.base, self.share)


class Run(NamedTuple):
    """A run as the table shows it; `sweep` is the name of the sweep that it belongs to."""

    name: str
    folder: Path
    sweep: str
    method: str
    model: str
    dataset: str
    seed: str
    state: str  # finished, running, unfinished, stopped, pruned or failed
    stages: tuple[str, ...]
    updated: float
    values: dict[str, Value]

    @property
    def title(self) -> str:
        """Return the name without its root."""
        return self.name.partition("/")[2]


class Index:
    """All runs below some roots, by name; newest first."""

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self.roots = dict(roots)
        self.lock = Lock()
        self.looked = 0.0
        self.known: dict[str, tuple[Signature, Run]] = {}

    def runs(self, again: bool = False) -> dict[str, Run]:
        """Return all runs; looks at the disk where the last look is older than `FRESH`, or where `again` says so."""
        with self.lock:
            if again or time.monotonic() - self.looked > FRESH:
                self.known = {name: entry for name, entry in self.entries() if entry}
                self.looked = time.monotonic()
            found = [with_state(run) for _, run in self.known.values()]
        return {run.name: run for run in sorted(found, key=lambda run: (run.updated, run.name), reverse=True)}

    def get(self, name: str) -> Run | None:
        """Return the run of a name, also one that has just begun; None where there is none."""
        return self.runs().get(name) or self.runs(again=True).get(name)

    def sweeps(self) -> dict[str, list[Run]]:
        """Return the runs of each sweep, by the sweep's name, in the order of their numbers."""
        groups: dict[str, list[Run]] = {}
        for run in self.runs().values():
            if run.sweep:
                groups.setdefault(run.sweep, []).append(run)
        return {name: sorted(runs, key=lambda run: int(run.folder.name)) for name, runs in groups.items()}

    def entries(self) -> Iterator[tuple[str, tuple[Signature, Run] | None]]:
        """Yield each run with the signature of its files."""
        for root, path in self.roots.items():
            for name, folder, sweep, listing in run_folders(root, path, "", DEPTH):
                with suppress(OSError):
                    signature, stages = signature_of(folder, listing)
                    known = self.known.get(name)
                    if known and known[0] == signature:
                        yield name, known
                    else:
                        yield name, (signature, read_run(name, folder, sweep, stages, signature))


def run_folders(name: str, folder: Path, sweep: str, depth: int) -> Iterator[tuple[str, Path, str, list[Any]]]:
    """Yield the folders of runs below a folder, each with its name, its sweep and its entries; follows no links."""
    try:
        with os.scandir(folder) as scanned:
            listing = [entry for entry in scanned if not entry.name.startswith(".")]
    except OSError:  # deleted in the meantime, or not readable
        return
    names = {entry.name for entry in listing}
    if names & set(RUN_FILES):
        yield name, folder, sweep if folder.name.isdigit() else "", listing
        return
    is_sweep = FACTS in names or (bool(names) and any(each.isdigit() for each in names))
    for entry in listing if depth else ():
        if entry.is_dir(follow_symlinks=False):
            yield from run_folders(f"{name}/{entry.name}", folder / entry.name, name if is_sweep else "", depth - 1)


def signature_of(folder: Path, listing: Sequence[Any]) -> tuple[Signature, list[str]]:
    """Return the sizes and times of the files that an index entry depends on, and the names of the stages' folders."""
    files = [(entry.name, *size_and_time(entry)) for entry in listing if entry.name in (*RUN_FILES, OUTCOME)]
    stages = []
    for entry in listing:
        if not entry.is_dir(follow_symlinks=False):
            continue
        for name in (METRICS, RESULT):
            with suppress(OSError):
                found = os.lstat(folder / entry.name / name)
                if stat.S_ISREG(found.st_mode):
                    files.append((f"{entry.name}/{name}", found.st_size, found.st_mtime_ns))
                    stages.append((found.st_mtime_ns, entry.name))
    return tuple(sorted(files)), list(dict.fromkeys(name for _, name in sorted(stages)))


def size_and_time(entry: Any) -> tuple[int, int]:
    """Return the size and the time of an entry of a folder."""
    state = entry.stat(follow_symlinks=False)
    return state.st_size, state.st_mtime_ns


def read_run(name: str, folder: Path, sweep: str, stages: list[str], signature: Signature) -> Run:
    """Read a run; a field that cannot be read is empty."""
    text = read_text(folder / CONFIG)
    chosen, seed = dict(CHOICE.findall(text)), SEED.search(text)
    plan, result = read_plan(folder), read_object(folder / RESULT)
    planned = [entry["stage"] for entry in plan if entry["stage"] in stages]
    ordered = planned + [stage for stage in stages if stage not in planned]
    if not result:
        results = (read_object(folder / stage / RESULT) for stage in reversed(ordered))
        last = next((each for each in results if each), {})
    else:
        last = result
    return Run(
        name=name,
        folder=folder,
        sweep=sweep,
        method=str(chosen.get("method") or last.get("stage") or (ordered[-1] if ordered else "")),
        model=chosen.get("model", ""),
        dataset=chosen.get("dataset", ""),
        seed=seed[1] if seed else str(last.get("seed", "")),
        state=state_of(folder, plan, result),
        stages=tuple(ordered),
        updated=max((changed for *_, changed in signature), default=0) / 1e9,
        values=dict(values_of(last)),
    )


def state_of(folder: Path, plan: list[dict[str, Any]], result: dict[str, Any]) -> str:
    """Return how far a run is; `running` holds only for as long as files change."""
    outcome = read_object(folder / OUTCOME).get("state")
    if outcome in ("pruned", "failed"):
        return str(outcome)
    if any(entry.get("action") == "stopped" for entry in plan):
        return "stopped"
    return "finished" if result else "running"


def with_state(run: Run) -> Run:
    """Return a run that no longer counts as running where its files have not changed for long."""
    silent = run.state == "running" and time.time() - run.updated > SILENT
    return run._replace(state="unfinished") if silent else run


def values_of(result: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """Yield the measures of a result; rows of another form are left out."""
    rows = result.get("measurements")
    for row in rows if isinstance(rows, list) else ():
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            base = row["before"]["value"] if row.get("before") else None
            yield str(row["name"]), Value(float(row["value"]), None if base is None else float(base), is_share(row))


def read_plan(folder: Path) -> list[dict[str, Any]]:
    """Read which stages a run has; empty while it runs."""
    plan = read_json(folder / PLAN)
    rows = plan if isinstance(plan, list) else []
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("stage"), str)]


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object; empty where there is none."""
    value = read_json(file)
    return value if isinstance(value, dict) else {}


def read_json(file: Path) -> Any:
    """Read a JSON file; None where it is missing, half-written or a link."""
    try:
        return json.loads(read_text(file))
    except (ValueError, RecursionError):
        return None


def read_text(file: Path) -> str:
    """Read a file's text; empty where there is none to read."""
    with suppress(OSError):
        return file.read_text(encoding="utf-8", errors="replace") if is_read(file) else ""
    return ""


def is_read(file: Path) -> bool:
    """Return whether a path is a regular file, no link, of at most `MOST` bytes."""
    size = size_of(file)
    return size is not None and size <= MOST


def size_of(file: Path) -> int | None:
    """Return the size of a regular file in bytes; None where there is none, or a link."""
    with suppress(OSError):
        state = file.lstat()
        return state.st_size if stat.S_ISREG(state.st_mode) else None
    return None
