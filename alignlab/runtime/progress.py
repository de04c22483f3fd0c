"""Progress of a loop: a bar with the time left on a terminal, and one line at the end, in logs too."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from alignlab.runtime import distributed

if TYPE_CHECKING:
    from tqdm import tqdm

BAR_DELAY = 2.0  # seconds until the bar appears


@contextmanager
def progress(total: int, what: str, things: str) -> Iterator[Callable[[int], None]]:
    """Show the progress of a loop; yields a function to call with the number of things done since the last call.

    On a terminal a bar with the time left appears after `BAR_DELAY` seconds. At the end one line replaces it.
    """
    started = time.monotonic()
    with progress_bar(total, what) as bar:
        yield bar.update
    taken = time.monotonic() - started
    if taken > BAR_DELAY:
        say(f"{what}: {total:,} {things} in {taken:.0f} s")


def progress_bar(total: int, what: str, done: int = 0) -> "tqdm[Any]":
    """Build a progress bar on standard error; it is disabled where that is not a terminal."""
    from tqdm import tqdm

    quiet = not (sys.stderr.isatty() and distributed.is_first())
    return tqdm(total=total, desc=what, initial=done, delay=BAR_DELAY, disable=quiet, file=sys.stderr, leave=False)


def say(line: str) -> None:
    """Print a line to standard error, in process 0 only."""
    if distributed.is_first():
        with suppress(OSError):  # the terminal may have closed
            print(line, file=sys.stderr, flush=True)
