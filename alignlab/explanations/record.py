"""The record of an explanation: the method, what its values mean, and what it cannot show."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CONTEXT = 8  # tokens before a token that decide how it is written
BROKEN = "\ufffd"  # stands for a character whose last token is yet to come


class TokenTrack(TypedDict):
    """One value per token; `unit` says what the values are."""

    name: str
    unit: str
    values: list[float]


class Neighbour(TypedDict):
    """A training row: its similarity, the stage whose data hold it, its id, and its text."""

    similarity: float
    stage: str
    id: str
    text: str


class Explanation(TypedDict):
    """What one method says of one completion, or of one prompt where it has neighbours."""

    method: str
    shows: str
    cannot_show: str
    figures: dict[str, float]
    tokens: NotRequired[list[str]]
    tracks: NotRequired[list[TokenTrack]]
    neighbours: NotRequired[list[Neighbour]]


def token_texts(tokenizer: "PreTrainedTokenizerBase", ids: Sequence[int]) -> list[str]:
    """Return the text that each token adds to the text before it; a character of several tokens is the last one's."""
    texts = []
    for end in range(1, len(ids) + 1):
        start = max(0, end - CONTEXT)
        before, text = (
            tokenizer.decode(ids[start:stop], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            for stop in (end - 1, end)
        )
        known = before.rstrip(BROKEN)
        pending = text.endswith(BROKEN) and end < len(ids)
        texts.append(
            "" if pending else text[len(known) :] if text.startswith(known) else tokenizer.decode([ids[end - 1]])
        )
    return texts
