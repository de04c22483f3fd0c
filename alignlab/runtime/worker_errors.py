"""What goes wrong in a worker, told once and in the order in which it happened.

When one process fails, the others soon fail too, for the lack of it. Each writes what ended it into a folder, with the
time; the first that is no echo of another's end is what the user is told. A process that wrote nothing was killed.
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


class Trouble(NamedTuple):
    """What ended a process: its number, the time in nanoseconds, the error where it explains itself, and its trace."""

    rank: int
    when: int
    error: Explained | None
    text: str

    @property
    def is_echo(self) -> bool:
        """Whether it only says that another process is gone."""
        return self.error is None and any(sign in self.text for sign in ECHOES)


ECHOES = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "DistBackendError",
    "DistNetworkError",
)


FOLDER = "workers-{}"  # in which a machine's workers say what goes wrong


class OutOfMemory(Failure):
    """No room for so many rows at once."""


class WorkerError(RuntimeError):
    """A bug that showed itself in a worker; its trace is the message."""


@contextmanager
def explained() -> Iterator[None]:
    """Turn running out of memory into a sentence; whatever explains itself goes on as it is."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        what = f"memory ran out ({' '.join(str(error).split())[:120]})"
        now = (
            "set hardware.micro_batch_size lower, or method.activation_checkpointing=true, or use hardware=zero3; "
            + GO_ON
        )
        raise OutOfMemory([Fault("hardware.micro_batch_size", what, now)]) from None


GO_ON = "the same command goes on from the last checkpoint"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's memory or the machine's is used up."""
    said = str(error)
    return isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said


def begin(folder: Path, rank: int) -> None:
    """Say that a process is at work; one that then ends without a word was killed."""
    (folder / f"{rank}.begun").touch()


def write(folder: Path, rank: int, error: BaseException) -> None:
    """Write down what ended a process."""
    told = error if isinstance(error, Explained) else None
    text = "".join(traceback.format_exception(error))
    aside = folder / f"{rank}.aside"
    aside.write_bytes(pickle.dumps(Trouble(rank, time.time_ns(), told, text)))
    aside.rename(folder / f"{rank}.trouble")


def everywhere(folder: Path, names: str) -> Iterator[Path]:
    """Files in the folder of this machine's workers, and in those of other machines'."""
    yield from folder.parent.glob(f"{FOLDER.format('*')}/{names}")


def first(folder: Path, failed: Any) -> Exception:
    """What the user is told of workers that failed; `failed` is the launcher's ChildFailedError.

    Where every process tells of another's end and none was killed, the first to do so has met the fault itself.
    """
    found = sorted((pickle.loads(path.read_bytes()) for path in everywhere(folder, "*.trouble")), key=lambda t: t.when)
    begun = {int(path.stem) for path in everywhere(folder, "*.begun")}
    known = {one.rank for one in found}
    own = [one for one in found if not one.is_echo] or (found if begun | set(failed.failures) <= known else [])
    if own:
        return own[0].error or WorkerError(f"in process {own[0].rank}:\n{own[0].text}")
    if any(one.exitcode == signals.AGAIN for one in failed.failures.values()):
        return signals.stopped()
    rank, what = killed(failed, known, begun)
    now = f"perhaps by the system, for memory: see its log; {GO_ON}"
    return failure(f"process {rank}", what, now)


def killed(failed: Any, known: set[int], begun: set[int]) -> tuple[str, str]:
    """Which process ended without a word, and how.

    The launcher names one of those that have ended, which may be one that fell because the other was gone.
    """
    for rank, one in failed.failures.items():
        if rank not in known:
            code = one.exitcode
            return str(rank), f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
    silent = begun - known
    return str(silent.pop()) if len(silent) == 1 else "of this stage", "was killed, or ended without a word"
