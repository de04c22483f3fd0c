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


def deduplicate(how: Deduplication) -> Step | None:
    """Return the step that drops exact repeats, and near repeats if `how` is near; None if it is none."""
    if how == "none":
        return None
    normalisers = {"the same": unchanged} | ({"nearly the same": normalise} if how == "near" else {})

    def step(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
        seen: dict[str, set[bytes]] = {name: set() for name in normalisers}
        previous: dict[str, bytes] = {}
        for row in rows:
            hashes = {name: hash_row(row, normaliser) for name, normaliser in normalisers.items()}
            repeat = next((name for name in normalisers if hashes[name] in seen[name]), None)
            if repeat is None:
                yield row
            else:
                original = "the row before" if previous.get(repeat) == hashes[repeat] else "an earlier row"
                tally.dropped[f"{repeat} as {original}"] += 1
            for name, row_hash in hashes.items():
                seen[name].add(row_hash)
            previous = hashes

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
