"""Progress of a loop: a bar with the time left on a terminal, a line every 30 s in a log, and one line at the end."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from alignlab.runtime import distributed

if TYPE_CHECKING:
    from tqdm import tqdm

BAR_DELAY = 2.0  # seconds until the bar appears
LINE_EVERY = 30.0  # seconds between two lines of progress in a log


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


class LogLines:
    """Stands in for a bar where standard error is no terminal: it prints a line every `LINE_EVERY` seconds."""

    disable = True  # no bar is drawn

    def __init__(self, total: int, what: str, done: int) -> None:
        self.total, self.what, self.n, self.first = total, what, done, done
        self.postfix = ""
        self.started = self.last = time.monotonic()

    def update(self, count: int = 1) -> None:
        """Count things that are done, and print a line when it is due."""
        self.n += count
        now = time.monotonic()
        if now - self.last < LINE_EVERY or self.n >= self.total:
            return
        self.last = now
        left = (now - self.started) * (self.total - self.n) / max(self.n - self.first, 1)
        postfix = f", {self.postfix}" if self.postfix else ""
        say(f"{self.what}: {self.n:,} of {self.total:,}, about {left:,.0f} s left{postfix}")

    def set_postfix_str(self, text: str) -> None:
        """Set the text at the end of each line."""
        self.postfix = text

    def close(self) -> None:
        """Do nothing: every line is printed at once."""

    def __enter__(self) -> "LogLines":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def progress_bar(total: int, what: str, done: int = 0) -> "tqdm[Any] | LogLines":
    """Build a progress bar on standard error, or the lines of a log where that is not a terminal."""
    from tqdm import tqdm

    if not sys.stderr.isatty():
        return LogLines(total, what, done)
    quiet = not distributed.is_first()
    return tqdm(total=total, desc=what, initial=done, delay=BAR_DELAY, disable=quiet, file=sys.stderr, leave=False)


def say(line: str) -> None:
    """Print a line to standard error, in process 0 only."""
    if distributed.is_first():
        with suppress(OSError):  # the terminal may have closed
            print(line, file=sys.stderr, flush=True)
