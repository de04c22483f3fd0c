"""Log a run's metrics: always to a JSONL file, and to W&B, TensorBoard or MLflow where the config asks for them.

Metrics are named `group/name` and mean the same in every method: `train/loss`, `reward/margin`, `eval/loss`. Each
tracker besides the JSONL file is a module of its own, `alignlab.runtime.<name>_tracker`.
"""

import json
import math
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from alignlab.config.credentials import without_keys
from alignlab.config.schema import Config
from alignlab.errors import Explained, Mistake
from alignlab.runtime.file_errors import explained_file_errors
from alignlab.runtime.files import remove_torn_line, write_text
from alignlab.runtime.http_client import status_of
from alignlab.runtime.progress import say
from alignlab.runtime.run_files import METRICS, SWEEP, TABLES, TriggeredGate
from alignlab.runtime.signals import Stopped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Pictures: TypeAlias = "dict[str, NDArray[np.uint8]]"  # by name, [height, width, 3]
REACH_SECONDS = 1.5  # a tracking server has to answer within this time


class InputModel(NamedTuple):
    """A model that a stage started from: the name of its stage or its hub id, its folder, and its fingerprint."""

    name: str
    path: Path
    fingerprint: str


class StageEnd(NamedTuple):
    """What a stage ended with.

    `model` is the folder of its weights; None where the stage was stopped. `inputs` are the models that it started
    from, by need, and `data` is the hash of its rows. `pictures` draws plots by name; only trackers that show them call
    it.
    """

    model: Path | None
    fingerprint: str
    inputs: dict[str, InputModel]
    data: str
    gates: list[TriggeredGate]
    pictures: Callable[[], Pictures]


class Tracker(Protocol):
    """Takes a stage's metrics, tables, final figures, and what it ended with."""

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Log the metrics of one step."""

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table, such as samples."""

    def summary(self, values: dict[str, float]) -> None:
        """Log the figures that a stage ends with."""

    def end(self, ended: StageEnd) -> None:
        """Log the model, what it was made from, the gates that triggered, and pictures."""

    def close(self) -> None:
        """Write everything that is buffered."""


class Names(NamedTuple):
    """What a tracker calls a run: its own name, and that of its group, which is the sweep or the run itself."""

    run: str
    group: str


def run_names(config: Config, run: Path) -> Names:
    """Return the names of the run in a folder; the runs of a sweep are named by their number and form one group."""
    if not (run.parent / SWEEP).exists():
        return Names(config.tracking.name or run.name, config.tracking.name or run.name)
    group = config.tracking.name or run.parent.name
    return Names(f"{group}-{run.name}", group)


def open_tracker(config: Config, stage: str, folder: Path, metrics: Path | None = None) -> Tracker:
    """Open every tracker that the config names, for one stage of the run in `folder`.

    The trackers write into `<folder>/<stage>`. `metrics` is another place for the JSONL file; a file that exists is
    continued, as a resumed stage needs it.
    """
    place = folder / stage
    place.mkdir(parents=True, exist_ok=True)
    others = [Guarded(name, config, stage, place) for name in dict.fromkeys(config.tracking.to)]
    return Trackers([JsonlTracker(metrics or place / METRICS), *others])


class Guarded:
    """A tracker that is left out after its first error, which is reported in one line; training continues."""

    def __init__(self, name: str, config: Config, stage: str, folder: Path) -> None:
        self.name, self.module = name, import_module(f"alignlab.runtime.{name}_tracker")
        self.tracker: Tracker | None = None
        self.guard(lambda: setattr(self, "tracker", self.module.open_tracker(config, stage, folder)))

    def guard(self, work: Callable[[], object]) -> None:
        """Do something with the tracker; on an error, leave the tracker out from now on."""
        try:
            work()
        except (Mistake, Stopped, MemoryError):
            raise
        except Exception as error:
            self.tracker = None
            why = str(error) if isinstance(error, Explained) else f"{type(error).__name__}: {error}"
            why = " ".join(without_keys(why).split())[:200]
            say(f"tracking: {self.name} is left out from here: {why}; {METRICS} is complete")
            with suppress(Exception):
                getattr(self.module, "abandon", lambda: None)()

    def log(self, metrics: dict[str, float], step: int) -> None:
        if tracker := self.tracker:
            self.guard(lambda: tracker.log(metrics, step))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if tracker := self.tracker:
            self.guard(lambda: tracker.table(name, columns, rows))

    def summary(self, values: dict[str, float]) -> None:
        if tracker := self.tracker:
            self.guard(lambda: tracker.summary(values))

    def end(self, ended: StageEnd) -> None:
        if tracker := self.tracker:
            self.guard(lambda: tracker.end(ended))

    def close(self) -> None:
        if tracker := self.tracker:
            self.guard(tracker.close)


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = trackers

    def log(self, metrics: dict[str, float], step: int) -> None:
        for tracker in self.trackers:
            tracker.log(metrics, step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        for tracker in self.trackers:
            tracker.table(name, columns, rows)

    def summary(self, values: dict[str, float]) -> None:
        for tracker in self.trackers:
            tracker.summary(values)

    def end(self, ended: StageEnd) -> None:
        for tracker in self.trackers:
            tracker.end(ended)

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.close()


class JsonlTracker:
    """Writes one JSON object per step, and one per table into a second file beside it.

    A stage that resumes repeats the steps after its last checkpoint; their earlier lines are removed.
    """

    def __init__(self, metrics: Path) -> None:
        self.metrics = metrics
        for file in (metrics, metrics.with_name(TABLES)):
            remove_torn_line(file)
        self.last = math.inf if metrics.is_file() else 0  # the step that was logged last; unknown where it resumes

    def log(self, metrics: dict[str, float], step: int) -> None:
        if step < self.last:
            remove_from(self.metrics, step)
        self.last = step
        append(self.metrics, {"step": step, **{name: finite(value) for name, value in metrics.items()}})

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        record = {"name": name, "columns": list(columns), "rows": [list(row) for row in rows]}
        append(self.metrics.with_name(TABLES), record)

    def summary(self, values: dict[str, float]) -> None:
        """Do nothing: the stage's result holds the figures."""

    def end(self, ended: StageEnd) -> None:
        """Do nothing: the stage's folder holds the model and the gates."""

    def close(self) -> None:
        """Do nothing: every line is written at once."""


def remove_from(file: Path, step: int) -> None:
    """Remove the lines of a step and of later ones, and a line that was cut short."""
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        with suppress(ValueError, LookupError, TypeError, RecursionError):  # a damaged line
            if json.loads(line)["step"] < step:
                kept.append(line)
    write_text(file, "".join(kept))


def append(file: Path, record: dict[str, Any]) -> None:
    """Append a line to a JSONL file; where the disk is full, the file stays as it was."""
    with explained_file_errors(file.parent):
        try:
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
        except OSError:
            remove_torn_line(file)
            raise


def finite(value: float) -> float | None:
    """Return None for NaN and infinity, which JSON does not have."""
    return value if math.isfinite(value) else None


def is_reachable(server: str, seconds: float) -> bool:
    """Return whether a server answers over HTTP in time, even with an error; the time includes the DNS lookup."""
    answered = threading.Event()

    def ask() -> None:
        if status_of(server, seconds) is not None:
            answered.set()

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return answered.is_set()
