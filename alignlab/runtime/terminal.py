"""Standard output and error that end no run: closed pipes, full disks, and terminals without this text's characters."""

import io
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import Any, TextIO


class Outlet(io.TextIOWrapper):
    """A text stream that drops what cannot be written, after one line that says so.

    A reader that has gone, as in `| head -1`, is no error. Characters that the encoding does not have are escaped.
    """

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self.drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.drop(error)

    def drop(self, error: OSError) -> None:
        """Let the stream, and what is buffered in it, end in the null device."""
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        if not isinstance(error, BrokenPipeError) and self is sys.stdout:
            print(f"standard output cannot be written ({error.strerror}); the command continues", file=sys.stderr)


def make_streams_robust() -> None:
    """Replace standard output and error by streams that never raise."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            encoding, by_line, at_once = stream.encoding, stream.line_buffering, stream.write_through
            robust = Outlet(stream.detach(), encoding, "backslashreplace", None, by_line, at_once)
            setattr(sys, name, robust)
            setattr(sys, f"__{name}__", robust)  # the detached stream can no longer be used


def show(lines: Iterable[str]) -> None:
    """Print lines at once; on a terminal wrapped at its width, with continuations indented."""
    for line in lines:
        print("\n".join(wrapped(line, shutil.get_terminal_size().columns)) if sys.stdout.isatty() else line, flush=True)


def wrapped(line: str, width: int) -> list[str]:
    """Wrap a line between words; continuations have the indentation of the line and two more."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    words = textwrap.TextWrapper(max(width, 2 * len(indent)), "", indent, break_long_words=False)
    words.break_on_hyphens = False
    return words.wrap(line) or [line]


def red(text: str, stream: TextIO | None = None) -> str:
    """Return a text in red if a stream, by default standard output, is a terminal with colours."""
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" or not (stream or sys.stdout).isatty()
    return text if plain else f"\033[31m{text}\033[0m"
