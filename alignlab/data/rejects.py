"""Rows that cannot be used: they are left out and counted, or they stop the run if `dataset.on_broken=stop`."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from alignlab.errors import failure
from alignlab.runtime.files import write_text
from alignlab.runtime.run_files import REJECTS

MOST_REJECTS = 100_000  # more rejects than this end the run at once, whatever `max_rejects` allows


class Reject(NamedTuple):
    """A broken row: its file, line and field, the reason, what was expected instead, and what helps, if known."""

    file: Path
    line: int
    field: str
    reason: str
    expected: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (f"{self.file}:{self.line}", self.field, self.reason) if part)

    @property
    def label(self) -> str:
        """Return the field and the reason, by which rejects are counted."""
        return ": ".join(filter(None, (self.field, self.reason)))


class RejectLog:
    """The rejects of one file set, the number of rows kept, and notes on the rows that were kept."""

    def __init__(self, on_broken: Literal["reject", "stop"], max_rejects: float) -> None:
        self.on_broken = on_broken
        self.max_rejects = max_rejects
        self.kept = 0
        self.rejects: list[Reject] = []
        self.notes: Counter[str] = Counter()

    def add(self, reject: Reject) -> None:
        """Record a reject; raise a failure if broken rows stop the run."""
        if self.on_broken == "stop":
            now = f"{reject.remedy or 'fix it'}, or set dataset.on_broken=reject to leave it out"
            raise failure(str(reject), "this row is broken", now)
        self.rejects.append(reject)
        if len(self.rejects) > MOST_REJECTS:
            self.check()

    def merge(self, other: "RejectLog") -> None:
        """Record the rows and the rejects of a later part of the file set; raise as `add` does."""
        self.kept += other.kept
        for reject in other.rejects:
            self.add(reject)

    def check(self) -> None:
        """Raise a failure if too many rows were rejected, or if none was kept."""
        rows = self.kept + len(self.rejects)
        few = len(self.rejects) <= MOST_REJECTS
        if not self.rejects or (few and self.kept and len(self.rejects) <= self.max_rejects * rows):
            return
        remedy = self.rejects[0].remedy or "fix them"
        raise failure(
            str(self.rejects[0]),
            f"{len(self.rejects):,} of {rows:,} rows are broken, this one first",
            f"{remedy}, or allow more with dataset.max_rejects (now {self.max_rejects:g})",
        )


def write_rejects(logs: Iterable[RejectLog], folder: Path) -> dict[str, int]:
    """Write rejects.jsonl, one reject per line; return their counts by field and reason."""
    rejects = [reject for log in logs for reject in log.rejects]
    lines = [json.dumps(reject._asdict(), default=str) + "\n" for reject in rejects]
    write_text(folder / REJECTS, "".join(lines))
    return dict(Counter(reject.label for reject in rejects))
