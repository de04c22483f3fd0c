"""Drop rows that have been there before: the same words, or the same but for case, blanks and punctuation.

What is kept of a row is 16 bytes of a hash, so that a million rows need about 100 MB. A repeat of the very row
before is told apart from one further back: the first is an accident of copying, the second may be chance.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator

from alignlab.config.dataset import Deduplication
from alignlab.data.ledger import Row, Step, Tally

NO_WORD = re.compile(r"[\W_]+")


def exactly(text: str) -> str:
    """The text as it is."""
    return text


def roughly(text: str) -> str:
    """The text without case, blanks and punctuation; a text of nothing else stays as it is."""
    return NO_WORD.sub(" ", text.casefold()).strip() or text


def mark(row: Row, reading: Callable[[str], str]) -> bytes:
    """Hash who says what in a row."""
    seen = hashlib.blake2b(digest_size=16)
    for role, text in [*((turn["role"], turn["content"]) for turn in row.prompt), *(("", c) for c in row.completions)]:
        words = reading(text).encode("utf-8", "surrogatepass")
        seen.update(f"{role} {len(words)} ".encode() + words)
    return seen.digest()


def deduplicate(how: Deduplication) -> Step | None:
    """The step that drops exact repeats, or rough ones as well; None where it is turned off."""
    if how == "none":
        return None
    readings = {"the same": exactly} | ({"nearly the same": roughly} if how == "near" else {})

    def step(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
        seen: dict[str, set[bytes]] = {name: set() for name in readings}
        before: dict[str, bytes] = {}
        for row in rows:
            marks = {name: mark(row, reading) for name, reading in readings.items()}
            repeated = next((name for name in readings if marks[name] in seen[name]), None)
            if repeated is None:
                yield row
            else:
                place = "the row before" if before.get(repeated) == marks[repeated] else "an earlier row"
                tally.dropped[f"{repeated} as {place}"] += 1
            for name, found in marks.items():
                seen[name].add(found)
            before = marks

    return step
