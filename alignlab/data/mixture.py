"""Mix sources by weight: how much of each path's training rows is used.

A weight of 1 takes every row, 0.25 those of a quarter of the questions, 2 takes every row twice and 1.5 those of
half of the questions twice. Which questions, their own words decide, so that all rows of a question stay together
and the order of files changes nothing. Rows that are measured on are left as they are.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from alignlab.data import splits
from alignlab.data.ledger import Row, Step, Tally


def mix(paths: Sequence[Path], weights: Sequence[float] | None) -> Step | None:
    """The step that takes each path's training rows as often as its weight says; None where there are no weights."""
    if weights is None:
        return None

    def step(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
        for row in rows:
            if row.split != "train":
                yield row
                continue
            times = copies(weights[owner(row.file, paths)], splits.opening(row.prompt) or row.completions[0])
            if not times:
                tally.dropped["left out by dataset.weights"] += 1
            for number in range(times):
                tally.added["taken again by dataset.weights"] += bool(number)
                yield row._replace(id=f"{row.id}*{number + 1}") if number else row

    return step


def copies(weight: float, question: str) -> int:
    """How often a row is taken: the weight, rounded down or up by the place of its question."""
    whole = int(weight)
    return whole + (splits.place(f"mixture {question}") < weight - whole)


def owner(file: Path, paths: Sequence[Path]) -> int:
    """Which of the paths a file lies at or under; of several, the nearest."""
    return max(
        (number for number, path in enumerate(paths) if file == path or path in file.parents),
        key=lambda number: len(paths[number].parts),
    )
