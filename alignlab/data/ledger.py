"""Rows on their way through the steps, and the ledger that proves that none was lost.

A step takes rows and gives rows; what it does to them it says in its `Tally`. The ledger counts the rows on both
sides of each step itself, so that `rows in + added = rows out + dropped` is checked and not assumed.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from alignlab.chat import Turn

Split = Literal["train", "validation", "test"]


class Row(NamedTuple):
    """One row: completions stand best first; `made_by` names the augmentation that made it, if any.

    Of a pair, `label` is the probability that the first completion is the better one, `weight` what the pair counts.
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

    def texts(self) -> Iterator[str]:
        """Everything that is said in the row."""
        yield from (turn["content"] for turn in self.prompt)
        yield from self.completions

    def mapped(self, change: Callable[[str], str]) -> "Row":
        """The same row with every text changed."""
        prompt: list[Turn] = [{"role": turn["role"], "content": change(turn["content"])} for turn in self.prompt]
        return self._replace(prompt=prompt, completions=[change(text) for text in self.completions])


class Tally:
    """What one step did: rows on both sides, and reasons with their counts."""

    def __init__(self) -> None:
        self.rows_in = 0
        self.rows_out = 0
        self.added: Counter[str] = Counter()
        self.changed: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()

    def balanced(self) -> bool:
        """Whether every row is accounted for."""
        return self.rows_in + self.added.total() == self.rows_out + self.dropped.total()

    def as_dict(self) -> dict[str, Any]:
        """The tally as JSON."""
        reasons = {name: dict(+getattr(self, name)) for name in ("added", "changed", "dropped", "notes")}
        return {"rows_in": self.rows_in, "rows_out": self.rows_out, **reasons}


Step = Callable[[Iterable[Row], Tally], Iterator[Row]]
Ledger = dict[str, Tally]


def through(rows: Iterable[Row], name: str, step: Step, ledger: Ledger) -> Iterator[Row]:
    """Send rows through one step, counting them on both sides."""
    tally = ledger[name] = Tally()
    return _counted_out(step(_counted_in(rows, tally), tally), tally)


def _counted_in(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
    for row in rows:
        tally.rows_in += 1
        yield row


def _counted_out(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
    for row in rows:
        tally.rows_out += 1
        yield row


def check(ledger: Ledger) -> None:
    """Raise where a step has lost a row or made one without saying so: a bug of ours."""
    for name, tally in ledger.items():
        if not tally.balanced():
            raise RuntimeError(f"the step {name} does not account for its rows: {tally.as_dict()}")
