"""SIGTERM, as a scheduler sends it before it takes a machine away: save, and leave with a code that says "again".

While a stage is trained, the step is finished and a checkpoint written; everywhere else there is nothing to save.
Either way the exit code is 75 (EX_TEMPFAIL of sysexits.h: try again later), and the same command goes on.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignlab.errors import Explained, Fault

AGAIN = 75
STOP = "stop"  # the file by which the process that a user has started tells its workers to stop
GRACE = 5.0  # seconds that a worker goes on where it was sent SIGTERM, and its parent was not asked to stop

_asked = threading.Event()
_saves: list[bool] = []  # whether something here can be saved


class Stopped(Explained):
    """The run was asked to stop, and can go on."""

    exit_code = AGAIN


def stopped(why: str = "SIGTERM") -> Stopped:
    """What ends a run that was asked to stop."""
    return Stopped([Fault("stopped", f"by {why}", "the same command goes on from the last checkpoint")])


def asked() -> bool:
    """Whether this process was asked to stop."""
    return _asked.is_set()


def heed() -> None:
    """Answer SIGTERM in the process that a user has started."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _answer)


def _answer(number: int, _: Any) -> None:
    again = _asked.is_set()
    _asked.set()
    if again or not _saves:
        raise stopped()


@contextmanager
def saving() -> Iterator[None]:
    """While this lasts, SIGTERM is answered at the end of a step."""
    _saves.append(True)
    try:
        yield
    finally:
        _saves.pop()


def forget() -> None:
    """Go on after having been asked to stop."""
    _asked.clear()


def ask() -> None:
    """Ask this process to stop, as SIGTERM does."""
    _asked.set()


def pass_on(folder: Path) -> None:
    """Answer SIGTERM by telling the workers that watch a folder; they have what time the scheduler gives."""

    def answer(*_: Any) -> None:
        _asked.set()
        (folder / STOP).touch()

    signal.signal(signal.SIGTERM, answer)


def heed_as_worker(troubles: Path, parent: int) -> None:
    """Answer signals in a worker, even while it waits for another one; and end when its parent does.

    `troubles` is the folder in which workers say what went wrong: where one has, there is nothing to wait for. There
    the parent says that it was asked to stop, and then waits for a checkpoint. torch's launcher sends SIGTERM where
    another worker has died: there is nothing to wait for either.
    """
    die_with(parent)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writing)  # written to at once, whatever the main thread is doing
    threading.Thread(target=_watch, args=(reading, troubles), daemon=True).start()
    threading.Thread(target=_heed, args=(troubles / STOP,), daemon=True).start()


def _heed(stop: Path) -> None:
    while not stop.exists():
        time.sleep(0.2)
    _asked.set()


def _watch(reading: int, troubles: Path) -> None:
    while os.read(reading, 1)[0] != signal.SIGTERM:
        os._exit(1)  # interrupted at the terminal
    _asked.set()
    end = time.monotonic() + GRACE
    while time.monotonic() < end or (troubles / STOP).exists():
        if any(troubles.glob("*.trouble")):
            os._exit(1)
        time.sleep(0.1)
    os._exit(AGAIN)


def die_with(parent: int) -> None:
    """Be killed when the parent dies, however it does (Linux; elsewhere a thread looks every second)."""
    try:
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        pass
    threading.Thread(target=_outlive, args=(parent,), daemon=True).start()


def _outlive(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
