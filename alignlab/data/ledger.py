"""Rows, the steps that process them, and a ledger of the rows that each step received, added, dropped and returned.

A step maps rows to rows and records in its `Tally` what it did. The ledger itself counts the rows before and after
each step, so that `rows_in + added == rows_out + dropped` can be checked.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.chat import Turn
from alignlab.data.splits import Split


class Row(NamedTuple):
    """One row of a data set.

    `completions` are sorted best first. `made_by` names the augmentation that made the row. `truth` is the personal
    data that masking must find, if known. In a pair, `label` is the probability that the first completion is better,
    and `weight` is the weight of the pair in the loss. `cut_off` are the places of the completions that did not end by
    themselves. `context` are the places of the prompt's answers that are not learned, from the prompt's end (-1 is its
    last turn). `rated` says that the row itself labels its single completion, and `harms` are the kinds of harm that it
    names.
    """

    id: str
    prompt: list[Turn]
    completions: list[str]
    split: Split
    kind: str
    made_by: str
    file: Path
    line: int
    truth: str
    label: float = 1.0
    weight: float = 1.0
    cut_off: tuple[int, ...] = ()
    context: tuple[int, ...] = ()
    rated: bool = False
    harms: tuple[str, ...] = ()

    def texts(self) -> Iterator[str]:
        """Yield every text of the row: turns, then completions."""
        yield from (turn["content"] for turn in self.prompt)
        yield from self.completions

    def map_texts(self, change: Callable[[str], str]) -> "Row":
        """Return the row with every text changed."""
        prompt: list[Turn] = [{"role": turn["role"], "content": change(turn["content"])} for turn in self.prompt]
        return self._replace(prompt=prompt, completions=[change(text) for text in self.completions])


class Tally:
    """What one step did: the number of rows before and after it, and counts by reason."""

    def __init__(self) -> None:
        self.rows_in = 0
        self.rows_out = 0
        self.added: Counter[str] = Counter()
        self.changed: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()

    def is_balanced(self) -> bool:
        """Return whether every row is accounted for."""
        return self.rows_in + self.added.total() == self.rows_out + self.dropped.total()

    def add(self, other: "Tally") -> None:
        """Add what the same step did to later rows."""
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out
        for name in ("added", "changed", "dropped", "notes"):
            getattr(self, name).update(getattr(other, name))

    def as_dict(self) -> dict[str, Any]:
        """Return the tally as JSON, without reasons that were counted 0 times."""
        reasons = {name: dict(+getattr(self, name)) for name in ("added", "changed", "dropped", "notes")}
        return {"rows_in": self.rows_in, "rows_out": self.rows_out, **reasons}


Step = Callable[[Iterable[Row], Tally], Iterator[Row]]
Ledger = dict[str, Tally]


def run_step(rows: Iterable[Row], name: str, step: Step, ledger: Ledger) -> Iterator[Row]:
    """Pass rows through one step and count them before and after it."""
    tally = ledger[name] = Tally()
    return _count_out(step(_count_in(rows, tally), tally), tally)


def _count_in(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
    for row in rows:
        tally.rows_in += 1
        yield row


def _count_out(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
    for row in rows:
        tally.rows_out += 1
        yield row


def check_balance(ledger: Ledger) -> None:
    """Raise a RuntimeError if a step lost or added a row without recording it."""
    for name, tally in ledger.items():
        if not tally.is_balanced():
            raise RuntimeError(f"the step {name} does not account for its rows: {tally.as_dict()}")
