"""Drop repeated rows: those with the same texts, or with the same texts except for case, spaces and punctuation.

A row is remembered by a hash of 16 bytes, so that a million rows need about 100 MB. Repeats of the row directly before
are counted apart from repeats of an earlier row: the former are copying errors, the latter may be chance.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator

from alignlab.config.dataset import Deduplication
from alignlab.data.ledger import Row, Step, Tally

NO_WORD = re.compile(r"[\W_]+")
NAMES = ("the same", "nearly the same")  # what a repeat is, by the place of the hash that is equal


Hashes = tuple[bytes, ...]  # of one row, one hash for each way of comparing rows
Find = Callable[[list[Hashes]], list[str]]


class Repeats:
    """The hashes of all rows so far."""

    def __init__(self) -> None:
        self.seen: dict[int, set[bytes]] = {place: set() for place in range(len(NAMES))}
        self.previous: Hashes = ()

    def find(self, rows: list[Hashes]) -> list[str]:
        """Return for each of the next rows of which earlier row it is a repeat; empty if it is none."""
        return [self._find(row) for row in rows]

    def _find(self, row: Hashes) -> str:
        place = next((place for place, one in enumerate(row) if one in self.seen[place]), None)
        for other, one in enumerate(row):
            self.seen[other].add(one)
        previous, self.previous = self.previous, row
        if place is None:
            return ""
        return f"{NAMES[place]} as {'the row before' if previous[place] == row[place] else 'an earlier row'}"


def deduplicate(how: Deduplication, find: Find) -> Step | None:
    """Return the step that drops exact repeats, and near repeats if `how` is near; None if it is none.

    `find` is that of the `Repeats` of all rows. It is asked once, for all rows that the step receives.
    """
    if how == "none":
        return None
    normalisers = [unchanged, normalise] if how == "near" else [unchanged]

    def step(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
        rows = list(rows)
        hashes = [tuple(hash_row(row, normaliser) for normaliser in normalisers) for row in rows]
        for row, repeat in zip(rows, find(hashes), strict=True):
            if repeat:
                tally.dropped[repeat] += 1
            else:
                yield row

    return step


def unchanged(text: str) -> str:
    """Return the text as it is."""
    return text


def normalise(text: str) -> str:
    """Remove case, spaces and punctuation; keep a text that has nothing else."""
    return NO_WORD.sub(" ", text.casefold()).strip() or text


def hash_row(row: Row, normaliser: Callable[[str], str]) -> bytes:
    """Hash the roles and the normalised texts of a row; an answer that is labelled bad is no repeat of a good one."""
    turns = [(turn["role"], turn["content"]) for turn in row.prompt]
    parts = [b"bad"] if row.rated and not row.label else []
    for role, text in [*turns, *(("", completion) for completion in row.completions)]:
        words = normaliser(text).encode("utf-8", "surrogatepass")
        parts += [f"{role} {len(words)} ".encode(), words]
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()
