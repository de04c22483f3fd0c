"""Scores of texts that the cache holds: a classifier or a server scores each text once."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from alignlab.runtime.files import cache_root, digest, locked
from alignlab.runtime.journal import Journal

Texts = Sequence[tuple[str, ...]]
Compute = Callable[[Texts], Iterable[Mapping[int, Any]]]


def short_name(model: str | None) -> str:
    """Return the last part of a model's name or path, as reports show it; empty without a model."""
    return model.rstrip("/").rpartition("/")[2] if model else ""


def score_once(scorer: str, rows: Texts, compute: Compute) -> list[Any]:
    """Return the score of each row of texts, as JSON holds it.

    `scorer` is the hash of all that decides a score. `compute` gets the rows that are new, and yields batch by batch
    their scores by place, which are kept at once: a killed evaluation resumes after its last batch.
    """
    keyed = {digest(*row): row for row in rows}
    file = cache_root() / "text_scores" / f"{scorer}.jsonl"
    with locked(file):
        journal = Journal(file)
        new = {key: row for key, row in keyed.items() if key not in journal.rows}
        names = list(new)
        for batch in compute(list(new.values())) if new else ():
            journal.add({"id": names[place], "score": score} for place, score in batch.items())
    return [journal.rows[digest(*row)]["score"] for row in rows]
