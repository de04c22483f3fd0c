"""Mix sources by weight: take each path's training rows as often as its weight says.

A weight of 1 takes every row once, 2 takes every row twice, 0.25 takes the rows of a quarter of the openings, and 1.5
takes the rows of half of the openings twice. A hash of the opening decides which, so that all rows of an opening are
treated alike and the order of files changes nothing. Validation and test rows are not weighted.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from alignlab.data import splits
from alignlab.data.ledger import Row, Step, Tally


def mix(paths: Sequence[Path], weights: Sequence[float] | None) -> Step | None:
    """Return the step that repeats or drops training rows by the weight of their path; None without weights."""
    if weights is None:
        return None

    def step(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
        for row in rows:
            if row.split != "train":
                yield row
                continue
            weight = weights[path_index(row.file, paths)]
            copies = count_copies(weight, splits.opening(row.prompt) or row.completions[0])
            if not copies:
                tally.dropped["left out by dataset.weights"] += 1
            for number in range(copies):
                tally.added["repeated by dataset.weights"] += bool(number)
                yield row._replace(id=f"{row.id}*{number + 1}") if number else row

    return step


def count_copies(weight: float, opening: str) -> int:
    """Return how often a row is taken: the weight, rounded down or up by a hash of the row's opening."""
    whole = int(weight)
    return whole + (splits.hash_fraction(f"mixture {opening}") < weight - whole)


def path_index(file: Path, paths: Sequence[Path]) -> int:
    """Return the index of the path that a file is at or under; the longest if there are several."""
    return max(
        (index for index, path in enumerate(paths) if file == path or path in file.parents),
        key=lambda index: len(paths[index].parts),
    )
