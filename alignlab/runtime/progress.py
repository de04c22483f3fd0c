"""Progress of a loop: a bar with the time left on a terminal, and one line at the end, in logs too."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from alignlab.runtime import distributed

if TYPE_CHECKING:
    from tqdm import tqdm

LONG = 2.0  # seconds after which work is worth a bar


@contextmanager
def progress(total: int, what: str, things: str) -> Iterator[Callable[[int], None]]:
    """Show how far a loop is; yields what to call with the number of things done.

    A bar with the time left, on a terminal and once the work has taken `LONG` seconds, gives way to a line at the end.
    """
    started = time.monotonic()
    with bar(total, what) as shown:
        yield shown.update
    taken = time.monotonic() - started
    if taken > LONG:
        say(f"{what}: {total:,} {things} in {taken:.0f} s")


def bar(total: int, what: str, done: int = 0) -> "tqdm[Any]":
    """A progress bar on standard error, switched off where that is no terminal."""
    from tqdm import tqdm

    quiet = not (sys.stderr.isatty() and distributed.is_first())
    return tqdm(total=total, desc=what, initial=done, delay=LONG, disable=quiet, file=sys.stderr, leave=False)


def say(line: str) -> None:
    """Tell the user something by the way, on standard error; of several processes the first one speaks."""
    if distributed.is_first():
        print(line, file=sys.stderr, flush=True)
