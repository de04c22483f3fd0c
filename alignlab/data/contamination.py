"""Are the rows that are measured on also trained on? Exactly, by their opening, or by the words that they share.

A row's words are compared as overlapping runs of eight; a row of which at least half of the runs stand in training
rows is near to them. Runs that many measured rows share, such as a template's, do not count. What is remembered of
the measured rows are hashes, so that the training rows can be a stream: memory grows with the smaller side.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from alignlab.data.splits import opening

WORD = re.compile(r"[^\W_]+")
RUN = 8  # words in a row that are compared; shorter texts are compared whole
NEAR = 0.5  # the share of a row's runs that makes it near
COMMON = 0.02  # runs in more than this share of the measured rows, and in more than ten, belong to a template


class Leak(NamedTuple):
    """What was found of one split in the training rows; `rows` is how many were looked for."""

    split: str
    rows: int
    exact: int
    opening: int
    near: int

    def __str__(self) -> str:
        if not (self.exact or self.opening or self.near):
            return f"{self.split}: none of {self.rows:,} rows is in the training rows"
        return (
            f"{self.split}: of {self.rows:,} rows {self.exact:,} are in the training rows, {self.opening:,} share "
            f"their opening with one, {self.near:,} share at least half of their words' runs of {RUN}"
        )


class Measured(NamedTuple):
    """A measured row as hashes."""

    whole: int
    opening: int
    runs: frozenset[int]


def leaks(splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> list[Leak]:
    """Look for the rows of validation and test among those of training."""
    measured = {name: telling([hashed(row) for row in splits[name]]) for name in ("validation", "test")}
    rows_measured = [row for rows in measured.values() for row in rows]
    wholes, openings = {row.whole for row in rows_measured}, {row.opening for row in rows_measured}
    wanted = {run for row in rows_measured for run in row.runs}
    seen_whole, seen_opening, seen_runs = set[int](), set[int](), set[int]()
    for row in splits["train"]:
        found = hashed(row)
        seen_whole |= {found.whole} & wholes
        seen_opening |= {found.opening} & openings
        seen_runs |= found.runs & wanted
    return [
        Leak(
            name,
            len(rows),
            sum(row.whole in seen_whole for row in rows),
            sum(row.opening in seen_opening for row in rows),
            sum(row.whole in seen_whole or near(row, seen_runs) for row in rows),
        )
        for name, rows in measured.items()
    ]


def telling(rows: list[Measured]) -> list[Measured]:
    """The same rows without the runs of words that so many share that they tell nothing."""
    shared = Counter(run for row in rows for run in row.runs)
    most = max(10, COMMON * len(rows))
    return [row._replace(runs=frozenset(run for run in row.runs if shared[run] <= most)) for row in rows]


def near(row: Measured, seen: set[int]) -> bool:
    """Whether enough of a row's runs have been seen."""
    return bool(row.runs) and len(row.runs & seen) >= NEAR * len(row.runs)


def hashed(row: Mapping[str, Any]) -> Measured:
    """A row as hashes: all that is asked in it, its opening, and its runs of words."""
    said = [turn["content"] for turn in row["prompt"]] or list(row["completions"])
    words = WORD.findall(" ".join(said).casefold())
    asked = opening(row["prompt"]) or " ".join(words)
    return Measured(number(" ".join(words)), number(asked), frozenset(map(number, runs(words))))


def runs(words: list[str]) -> Iterator[str]:
    """Overlapping runs of words; all words as one run where there are fewer."""
    for start in range(max(1, len(words) - RUN + 1)):
        yield " ".join(words[start : start + RUN])


def number(text: str) -> int:
    """Hash a text to 64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
