"""Count the held-out rows that are also training rows: identical, with the same opening, or with shared words.

Words are compared as overlapping 8-grams. A held-out row is near the training rows if at least half of its 8-grams
occur in them. An 8-gram that many held-out rows share belongs to a template and is ignored. Only hashes of the
held-out rows are kept, so that the training rows can be a stream: memory grows with the held-out splits.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from alignlab.data.prepared import Part, Rows, Splits, by_parts
from alignlab.data.splits import opening, words_of

N = 8  # words in an n-gram; a shorter text is one n-gram
NEAR = 0.5  # share of a row's n-grams that must occur in the training rows for the row to be near
COMMON = 0.02  # an n-gram in more than this share of the held-out rows, and in more than 10, belongs to a template


class Contamination(NamedTuple):
    """How many of a held-out split's rows occur among the training rows; `rows` is the size of the split."""

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
            f"their opening with one, {self.near:,} share at least half of their word {N}-grams with them"
        )

    def record(self) -> dict[str, Any]:
        """Return the counts and the sentence about them, as JSON files hold them."""
        return {**self._asdict(), "summary": str(self)}


class RowHashes(NamedTuple):
    """A row as hashes of its whole text, its opening and its n-grams."""

    text: int
    opening: int
    ngrams: frozenset[int]


class RowSets(NamedTuple):
    """Hashes of rows, of their openings and of their n-grams."""

    texts: set[int]
    openings: set[int]
    ngrams: set[int]

    def add(self, rows: "Iterable[RowHashes]") -> "RowSets":
        """Add the hashes of rows; return these sets."""
        for row in rows:
            self.texts.add(row.text)
            self.openings.add(row.opening)
            self.ngrams.update(row.ngrams)
        return self

    def merge(self, other: "RowSets") -> None:
        """Add the hashes of other sets."""
        for hashes, more in zip(self, other, strict=True):
            hashes.update(more)

    def common(self, rows: "Iterable[RowHashes]") -> "RowSets":
        """Return the hashes of rows that are in these sets, too."""
        sets = no_rows()
        for row in rows:
            if row.text in self.texts:
                sets.texts.add(row.text)
            if row.opening in self.openings:
                sets.openings.add(row.opening)
            sets.ngrams.update(row.ngrams & self.ngrams)
        return sets


def no_rows() -> RowSets:
    """Return empty sets."""
    return RowSets(set(), set(), set())


def contamination(splits: Splits) -> list[Contamination]:
    """Look for the rows of the validation and test splits in the training split; return one record per split."""
    held_out = hash_held_out(splits)
    trained = seen([row for split in held_out.values() for row in split], splits["train"])
    return count_all(held_out, trained)


def near_training(rows: Iterable[Mapping[str, Any]], training: Rows) -> list[bool]:
    """Return for each row whether it is a training row, or near one."""
    hashed = drop_common_ngrams([hash_row(row) for row in rows])
    trained = seen(hashed, training)
    return [row.text in trained.texts or is_near(row, trained.ngrams) for row in hashed]


def hash_held_out(splits: Splits) -> dict[str, list[RowHashes]]:
    """Hash the rows of the validation and test splits, without the n-grams of templates."""
    hashed: dict[str, list[RowHashes]] = {"validation": [], "test": []}
    with by_parts(_hash_part, {name: splits[name] for name in hashed}) as parts:
        for split, rows in parts:
            hashed[split] += rows
    return {name: drop_common_ngrams(rows) for name, rows in hashed.items()}


def _hash_part(part: Part) -> tuple[str, list[RowHashes]]:
    return part.split, [hash_row(row) for row in part.rows]


def seen(rows: Iterable[RowHashes], training: Rows) -> RowSets:
    """Return the hashes of rows that occur in the training rows, which are read once."""
    wanted, trained = no_rows().add(rows), no_rows()
    with by_parts(lambda part: wanted.common(map(hash_row, part.rows)), {"train": training}) as parts:
        for part in parts:
            trained.merge(part)
    return trained


def count_all(held_out: Mapping[str, list[RowHashes]], trained: RowSets) -> list[Contamination]:
    """Count the rows of each held-out split that are in the training rows."""
    return [count(name, split, trained) for name, split in held_out.items()]


def count(name: str, rows: list[RowHashes], trained: RowSets) -> Contamination:
    """Count the rows of one held-out split that are in the training rows."""
    return Contamination(
        name,
        len(rows),
        exact=sum(row.text in trained.texts for row in rows),
        opening=sum(row.opening in trained.openings for row in rows),
        near=sum(row.text in trained.texts or is_near(row, trained.ngrams) for row in rows),
    )


def drop_common_ngrams(rows: list[RowHashes]) -> list[RowHashes]:
    """Return the rows without the n-grams of templates."""
    counts = Counter(ngram for row in rows for ngram in row.ngrams)
    most = max(10, COMMON * len(rows))
    return [row._replace(ngrams=frozenset(ngram for ngram in row.ngrams if counts[ngram] <= most)) for row in rows]


def is_near(row: RowHashes, trained: set[int]) -> bool:
    """Return whether enough of a row's n-grams occur in the training rows."""
    return bool(row.ngrams) and len(row.ngrams & trained) >= NEAR * len(row.ngrams)


def hash_row(row: Mapping[str, Any]) -> RowHashes:
    """Hash a row's prompt (its completions if it has none), its opening and its n-grams."""
    texts = [turn["content"] for turn in row["prompt"]] or list(row["completions"])
    words = words_of(" ".join(texts))
    first = opening(row["prompt"]) or " ".join(words)
    return RowHashes(hash(tuple(words)), hash(first), frozenset(map(hash, word_ngrams(words))))


def word_ngrams(words: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield overlapping n-grams; all words as one n-gram if there are fewer than N."""
    if len(words) <= N:
        return iter([tuple(words)])
    return zip(*(islice(words, start, None) for start in range(N)), strict=False)
