"""Report the error that ended a training in several processes: the first one, and once.

When one worker fails, the others fail soon after, since their connection is closed. Each worker writes an error report
with the time into a folder. The user sees the first report that is not caused by another worker's end. A worker without
a report was killed.
"""

import pickle
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.errors import Explained, Failure, Fault, failure
from alignlab.runtime import signals
from alignlab.runtime.signals import RESUME

FOLDER = "workers-{}"  # of one machine's workers, inside the stage's folder
SIGNS_OF_A_LOST_WORKER = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "DistBackendError",
    "DistNetworkError",
)


class ErrorReport(NamedTuple):
    """The error that ended a worker: `when` is in nanoseconds, `error` is None for a bug, `text` is the traceback."""

    rank: int
    when: int
    error: Explained | None
    text: str

    @property
    def is_consequence(self) -> bool:
        """Return whether the error only says that another worker is gone."""
        return self.error is None and any(sign in self.text for sign in SIGNS_OF_A_LOST_WORKER)


class OutOfMemory(Failure):
    """The memory does not hold this many rows at once."""


class WorkerError(RuntimeError):
    """A bug that raised in a worker; its traceback is the message."""


@contextmanager
def explain_out_of_memory() -> Iterator[None]:
    """Turn an out-of-memory error into an `OutOfMemory` that names the settings to change."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        what = f"memory ran out ({' '.join(str(error).split())[:120]})"
        remedy = "set hardware.micro_batch_size lower, or method.activation_checkpointing=true, or use hardware=zero3"
        raise OutOfMemory([Fault("hardware.micro_batch_size", what, f"{remedy}; {RESUME}")]) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the memory of a GPU or of the machine is used up."""
    message = str(error)
    return isinstance(error, MemoryError) or "out of memory" in message or "can't allocate memory" in message


def must_reach_run(error: BaseException) -> bool:
    """Return whether an error must not be explained again: it is explained, or memory is used up."""
    return isinstance(error, Explained) or is_out_of_memory(error)


def record_start(folder: Path, rank: int) -> None:
    """Record that a worker has started; if it leaves no error report, it was killed."""
    (folder / f"{rank}.started").touch()


def write_report(folder: Path, rank: int, error: BaseException) -> None:
    """Write the error report of a worker."""
    report = ErrorReport(
        rank=rank,
        when=time.time_ns(),
        error=error if isinstance(error, Explained) else None,
        text="".join(traceback.format_exception(error)),
    )
    partial = folder / f"{rank}.partial"
    partial.write_bytes(pickle.dumps(report))
    partial.rename(folder / f"{rank}.error")


def files_of_all_machines(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield the matching files in the workers' folders of this machine and of the others."""
    yield from folder.parent.glob(f"{FOLDER.format('*')}/{pattern}")


def first_error(folder: Path, failed: Any) -> Exception:
    """Return the error to raise for failed workers; `failed` is the launcher's ChildFailedError.

    If every worker left a report and each is a consequence of another's end, the earliest is the cause.
    """
    reports = [pickle.loads(path.read_bytes()) for path in files_of_all_machines(folder, "*.error")]
    reports.sort(key=lambda report: report.when)
    started = {int(path.stem) for path in files_of_all_machines(folder, "*.started")}
    reported = {report.rank for report in reports}
    causes = [report for report in reports if not report.is_consequence]
    if not causes and started | set(failed.failures) <= reported:
        causes = reports
    if causes:
        return causes[0].error or WorkerError(f"in process {causes[0].rank}:\n{causes[0].text}")
    if any(child.exitcode == signals.EX_TEMPFAIL for child in failed.failures.values()):
        return signals.stopped()
    return killed(failed, reported, started)


def killed(failed: Any, reported: set[int], started: set[int]) -> Exception:
    """Build the failure that names the worker which exited without a report.

    The launcher names one worker that has ended. That one may have failed because of another that was killed.
    """
    now = f"check the system's log for the OOM killer; {RESUME}"
    for rank, child in failed.failures.items():
        if rank not in reported:
            code = child.exitcode
            what = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"exited with code {code}"
            return failure(f"process {rank}", what, now)
    silent = started - reported
    where = f"process {silent.pop()}" if len(silent) == 1 else "a process of this stage"
    return failure(where, "was killed, or exited without an error report", now)
