"""Stop a run on SIGTERM, SIGINT (Ctrl-C) or SIGHUP: finish the step, save a checkpoint and exit.

The exit code is 130 after SIGINT, else 75 (EX_TEMPFAIL). Schedulers send SIGTERM before they take a machine away, and a
terminal that closes sends SIGHUP. Outside of training there is nothing to save, and the run exits at once, as it does
on a second signal. The same command resumes it in all cases.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alignlab.errors import Explained, Fault

EX_TEMPFAIL = 75  # of sysexits.h: run the same command again
EX_INTERRUPTED = 130  # a shell's code of a command that Ctrl-C ended
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
STOP_FILE = "stop"  # created in the folder of the workers by their parent, to make them stop
GRACE = 2.0  # seconds until a worker exits that got SIGTERM although its parent did not
RESUME = "the same command resumes from the last checkpoint"

_stop_requested = threading.Event()
_received: list[signal.Signals] = []  # the signals that asked to stop
_deferred: list[bool] = []  # one entry per `defer_stop` that is active


class Stopped(Explained):
    """The run was stopped by a signal, and can be resumed."""

    exit_code = EX_TEMPFAIL


class Interrupted(Stopped):
    """The run was stopped by Ctrl-C, and can be resumed."""

    exit_code = EX_INTERRUPTED


def stopped(why: str = "") -> Stopped:
    """Build the error that ends a run which was asked to stop."""
    why = why or (_received[0].name if _received else "SIGTERM")
    return (Interrupted if why == "SIGINT" else Stopped)([Fault("stopped", f"by {why}", RESUME)])


def exit_on_signals() -> None:
    """Make stop signals end the process at once: before a run begins, and while it ends, there is nothing to save."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _exit)


def _exit(number: int, _: Any) -> None:
    error = stopped(signal.Signals(number).name)
    if not _received:  # otherwise the first signal was reported
        with suppress(OSError):
            os.write(2, f"{error}\n".encode())
    os._exit(error.exit_code)


def stop_requested() -> bool:
    """Return whether this process was asked to stop."""
    return _stop_requested.is_set()


def handle_stop_signals() -> None:
    """Install the handler of stop signals in the process that the user started; one that is ignored stays ignored."""
    if threading.current_thread() is threading.main_thread():
        sys.unraisablehook = _repeat_swallowed
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # by nohup, or for a background job
                signal.signal(number, _on_signal)


def _repeat_swallowed(unraisable: Any) -> None:
    """Send a signal again whose exception was raised inside `__del__`, where Python drops it."""
    if not isinstance(unraisable.exc_value, Stopped | KeyboardInterrupt) or not _received:
        sys.__unraisablehook__(unraisable)
        return
    again = threading.Timer(0.05, os.kill, (os.getpid(), _received[-1]))
    again.daemon = True
    clear_stop_request()
    again.start()


@contextmanager
def explained_stop() -> Iterator[None]:
    """Raise `Stopped` for an error that a library made of it, such as a failed import."""
    try:
        yield
    except Exception as error:
        if stop_requested() and not isinstance(error, Explained):
            raise stopped() from None
        raise


def _on_signal(number: int, _: Any) -> None:
    is_second = _stop_requested.is_set()
    _request(number)
    if is_second or not _deferred:
        raise KeyboardInterrupt if number == signal.SIGINT else stopped()


def _request(number: int) -> None:
    _received.append(signal.Signals(number))
    _stop_requested.set()


@contextmanager
def defer_stop() -> Iterator[None]:
    """Make the first signal only request a stop, which the training loop reads after each step."""
    _deferred.append(True)
    try:
        yield
    finally:
        _deferred.pop()


def clear_stop_request() -> None:
    """Clear the request to stop."""
    _received.clear()
    _stop_requested.clear()


def request_stop() -> None:
    """Request a stop of this process, as SIGTERM does."""
    _stop_requested.set()


def forward_to_workers(folder: Path) -> None:
    """Handle stop signals by creating the stop file in the folder of the workers; then wait for them."""

    def handler(number: int, _: Any) -> None:
        is_second = _stop_requested.is_set()
        _request(number)
        (folder / STOP_FILE).touch()
        if is_second and number == signal.SIGINT:
            raise KeyboardInterrupt

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def handle_signals_in_worker(folder: Path, parent: int) -> None:
    """Handle signals in a worker, even while it waits in a collective operation; exit when the parent exits.

    `folder` holds the error reports of the workers and the parent's stop file. With a stop file the worker saves a
    checkpoint first. torch's launcher also sends SIGTERM when another worker has failed; then there is an error report,
    or no stop file, and the worker exits without saving.
    """
    die_with(parent)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writing)  # written to at once, also while the main thread runs native code
    threading.Thread(target=_watch_signals, args=(reading, folder), daemon=True).start()
    threading.Thread(target=_watch_stop_file, args=(folder / STOP_FILE,), daemon=True).start()


def _watch_stop_file(stop: Path) -> None:
    while not stop.exists():
        time.sleep(0.2)
    _stop_requested.set()


def _watch_signals(reading: int, folder: Path) -> None:
    while os.read(reading, 1)[0] != signal.SIGTERM:
        pass  # a terminal sends SIGINT and SIGHUP to all processes; the parent creates the stop file
    _stop_requested.set()
    end = time.monotonic() + GRACE
    while time.monotonic() < end or (folder / STOP_FILE).exists():
        if any(folder.glob("*.error")):
            os._exit(1)
        time.sleep(0.1)
    os._exit(EX_TEMPFAIL)


def die_with(parent: int) -> None:
    """Kill this process when its parent exits: by the kernel on Linux, elsewhere by a thread that polls each second."""
    try:
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):
        pass
    threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
