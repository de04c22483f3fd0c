"""Assign rows to splits by their opening, so that no question is in two splits.

The opening of a row is its first user turn as a set of words: numbers and words of four or more letters, without
case, order and punctuation. Questions with the same opening count as one. (In HH-RLHF, which is split by row, 2,054
of 2,312 harmless test rows share their opening with a training row.)

An opening that many rows share, such as a greeting, does not split them; their whole prompts do. Where hashes give
a split less than half of its share, the openings are ranked by their hashes: each split gets its share, at least one.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

from alignlab.chat import Turn

Split = Literal["train", "validation", "test"]
SPLITS = ("train", "validation", "test")
WORD = re.compile(r"[^\W_]+")
LONG_WORD = 4  # letters; shorter words count only if a question has few longer ones
FEW_WORDS = 3
COMMON_SHARE = 0.2  # of all rows; an opening of more rows than this does not split them
FEWEST_OPENINGS = 5  # with fewer, all rows are training rows


def opening(prompt: Sequence[Turn]) -> str:
    """Return the sorted significant words of the first user turn; its text if it has no words."""
    return significant_words(next((turn["content"] for turn in prompt if turn["role"] == "user"), ""))


@lru_cache(maxsize=16)  # contamination asks for the words of an opening, too
def words_of(text: str) -> list[str]:
    """Return the words of a text, without case."""
    return WORD.findall(text.casefold())


@lru_cache(maxsize=16)  # a data card asks for a row's opening twice
def significant_words(first: str) -> str:
    """Return the sorted significant words of a text; the text if it has no words."""
    words = set(words_of(first))
    significant = {word for word in words if len(word) >= LONG_WORD or word.isdecimal()}
    return " ".join(sorted(significant if len(significant) >= FEW_WORDS else words)) or first.strip()


def hash_fraction(text: str) -> float:
    """Hash a text to a number in [0, 1)."""
    number = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]
    return int.from_bytes(number) / 2**64


def split_of_fraction(fraction: float, validation: float, test: float) -> Split:
    """Return the split of a hash in [0, 1)."""
    return "test" if fraction < test else "validation" if fraction < test + validation else "train"


class SplitKeys:
    """The keys by which rows are split, counted while they are used, and improved where a split stays empty."""

    def __init__(self, validation: float, test: float) -> None:
        self.validation, self.test = validation, test
        self.common: frozenset[float] = frozenset()  # hashes of openings whose rows their whole prompts split
        self.ranked: Mapping[
            float, Split
        ] = {}  # the split of each key, by its hash, where hashes alone leave one empty
        self.counts: Counter[float] = Counter()  # rows by the hash of their key

    def split(self, prompt: Sequence[Turn], otherwise: str) -> Split:
        """Return the split of a row by its prompt, or by other text if it has no prompt."""
        fraction = hash_fraction(opening(prompt) or otherwise)
        if fraction in self.common:
            fraction = hash_fraction("\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt))
        self.counts[fraction] += 1
        return self.ranked.get(fraction) or split_of_fraction(fraction, self.validation, self.test)

    def uncounted(self) -> "SplitKeys":
        """Return the same keys with counts of their own."""
        keys = SplitKeys(self.validation, self.test)
        keys.common, keys.ranked = self.common, self.ranked
        return keys

    def improved(self) -> "SplitKeys | None":
        """Return keys that split the rows better: without common openings, then ranked; None if these are good."""
        if self.ranked or not self.validation + self.test:
            return None
        better = SplitKeys(self.validation, self.test)
        most = max(2, COMMON_SHARE * self.counts.total())
        better.common = self.common or frozenset(key for key, count in self.counts.items() if count > most)
        if better.common and not self.common:
            return better
        shares: dict[Split, float] = {"validation": self.validation, "test": self.test}
        used = Counter(split_of_fraction(fraction, self.validation, self.test) for fraction in self.counts)
        if len(self.counts) < FEWEST_OPENINGS:
            better.ranked = dict.fromkeys(self.counts, "train")
            return None if {*used} <= {"train"} else better
        least = {name: max(1.0, share * len(self.counts) / 2) for name, share in shares.items() if share}
        if used["train"] and all(used[name] >= number for name, number in least.items()):
            return None
        ordered = sorted(self.counts)
        test, validation = (
            max(1, round(share * len(ordered))) if share else 0 for share in (self.test, self.validation)
        )
        better.ranked = {
            fraction: "test" if place < test else "validation" if place < test + validation else "train"
            for place, fraction in enumerate(ordered)
        }
        return better
