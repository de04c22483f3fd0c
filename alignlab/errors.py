"""Errors with a message for the user: where it happened, what is wrong, and what to do.

`Mistake` is an error in the command, found before anything runs; the exit code is 2. `Failure` is a later error that
the user can act on; the exit code is 1. `Refused` is a decision against a model; the exit code is 3. None of them shows
a traceback. Any other exception is a bug and shows one.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Fault(NamedTuple):
    """One error: its place (`method.beta`, `rows.jsonl:17`), what is wrong there, and what to do."""

    where: str
    what: str
    now: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"; {self.now}" if self.now else "")


class Explained(Exception):
    """One or more faults; the message has one line per fault."""

    exit_code = 1

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(map(str, self.faults)))

    def __reduce__(self) -> tuple[type["Explained"], tuple[tuple[Fault, ...]]]:
        return type(self), (self.faults,)


class Mistake(Explained):
    """An error in the command or its config."""

    exit_code = 2


class Failure(Explained):
    """An error that the config does not show: unreadable data, a full disk, a model without a head."""


class Refused(Explained):
    """A candidate model that is not accepted: the exit code tells it from an error."""

    exit_code = 3


def mistake(where: str, what: str, now: str = "") -> Mistake:
    """Build a `Mistake` with one fault."""
    return Mistake([Fault(where, what, now)])


def failure(where: str, what: str, now: str = "") -> Failure:
    """Build a `Failure` with one fault."""
    return Failure([Fault(where, what, now)])
