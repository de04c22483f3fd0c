"""Assign rows to splits by their opening, so that no question is in two splits.

The opening of a row is its first user turn as a set of words: numbers and words of four or more letters, without
case, order and punctuation. Questions with the same opening count as one. (In HH-RLHF, which is split by row, 2,054
of 2,312 harmless test rows share their opening with a training row.)
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Literal

from alignlab.chat import Turn

Split = Literal["train", "validation", "test"]
SPLITS = ("train", "validation", "test")
WORD = re.compile(r"[^\W_]+")
LONG_WORD = 4  # letters; shorter words count only if a question has few longer ones
FEW_WORDS = 3


def opening(prompt: Sequence[Turn]) -> str:
    """Return the sorted significant words of the first user turn; its text if it has no words."""
    first = next((turn["content"] for turn in prompt if turn["role"] == "user"), "")
    words = set(WORD.findall(first.casefold()))
    significant = {word for word in words if len(word) >= LONG_WORD or word.isdecimal()}
    return " ".join(sorted(significant if len(significant) >= FEW_WORDS else words)) or first.strip()


def hash_fraction(text: str) -> float:
    """Hash a text to a number in [0, 1)."""
    number = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]
    return int.from_bytes(number) / 2**64


def split_of(opening: str, validation: float, test: float) -> Split:
    """Return the split of an opening; `validation` and `test` are shares of all openings."""
    fraction = hash_fraction(opening)
    return "test" if fraction < test else "validation" if fraction < test + validation else "train"
