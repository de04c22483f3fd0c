"""Who trains and who is measured: decided by the first question, so that no question stands on both sides.

Questions that resemble each other count as one: the same numbers and words of four letters or more, whatever their
order, case, endings in punctuation and the little words between them. (In HH-RLHF, split by row, 2,054 of 2,312
harmless test rows share their opening with a training row.)
"""

import hashlib
import re
from collections.abc import Sequence

from alignlab.chat import Turn
from alignlab.data.ledger import Split

WORD = re.compile(r"[^\W_]+")
LITTLE = 4  # shorter words tell questions apart only where longer ones are few
FEW = 3


def opening(prompt: Sequence[Turn]) -> str:
    """What is compared of a prompt: the words of its first human turn that carry meaning, sorted."""
    said = next((turn["content"] for turn in prompt if turn["role"] == "user"), "")
    words = set(WORD.findall(said.casefold()))
    telling = {word for word in words if len(word) >= LITTLE or word.isdecimal()}
    return " ".join(sorted(telling if len(telling) >= FEW else words)) or said.strip()


def place(opening: str) -> float:
    """A number from 0 to 1 that an opening always has."""
    number = hashlib.sha256(opening.encode("utf-8", "surrogatepass")).digest()[:8]
    return int.from_bytes(number) / 2**64


def split_of(opening: str, validation: float, test: float) -> Split:
    """The split that an opening belongs to: the shares of test, then of validation, then training."""
    where = place(opening)
    return "test" if where < test else "validation" if where < test + validation else "train"
