"""Turns to token ids, by one function for every stage.

A conversation is a list of turns. Training, evaluation and serving all tokenise it here, with the chat
template that is stored in the model's folder, so that no two stages see different ids for the same words.
A template must be additive: what a prompt is written as begins what prompt and completion are written as.

Words are only ever words: where a turn holds the text of a special token (`<|im_end|>`), each is written as a
stand-in while the template is filled in, and becomes plain text again before it is tokenised.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

from alignlab.errors import failure

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PRIVATE = 0xF0000  # Unicode gives characters from here on no meaning


class Turn(TypedDict):
    """What one speaker says; the shape that OpenAI, transformers and TRL share."""

    role: Literal["system", "user", "assistant"]
    content: str


class Encoded(NamedTuple):
    """A prompt and a completion as token ids; the completion ends with the end-of-turn token."""

    prompt: list[int]
    completion: list[int]


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn]) -> list[int]:
    """Token ids of a prompt, up to and including the words that open the assistant's answer."""
    hidden = stand_ins(tokenizer, turns)
    return token_ids(tokenizer, write(tokenizer, turns, hidden, opens=True), hidden)


def encode(tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn], completion: str) -> Encoded:
    """Token ids of a prompt and its completion; the completion's ids are what a model has to produce."""
    answered: list[Turn] = [*turns, {"role": "assistant", "content": completion}]
    hidden = stand_ins(tokenizer, answered)
    before, after = write(tokenizer, turns, hidden, opens=True), write(tokenizer, answered, hidden, opens=False)
    prompt, whole = token_ids(tokenizer, before, hidden), token_ids(tokenizer, after, hidden)
    if whole[: len(prompt)] == prompt:
        ids = whole[len(prompt) :]
    elif after.startswith(before):  # a token would reach over the border, which no model that answers can produce
        ids = token_ids(tokenizer, after[len(before) :], hidden)
    else:
        raise failure(
            "chat template",
            "the prompt's tokens change when the answer follows",
            "give a template whose generation prompt is how an assistant turn begins",
        )
    return Encoded(prompt, ended(ids, tokenizer.eos_token_id))


def ended(ids: list[int], end: int | None) -> list[int]:
    """End a completion with the end of the turn; what a template writes after that is not the model's to learn."""
    if end is None:
        return ids
    return ids[: len(ids) - ids[::-1].index(end)] if end in ids else [*ids, end]


def write(
    tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn], hidden: Mapping[str, str], *, opens: bool
) -> str:
    """Fill in the chat template, with stand-ins for special tokens' texts; `opens` begins the assistant's answer."""
    said = [{"role": turn["role"], "content": replaced(turn["content"], hidden)} for turn in turns]
    return str(tokenizer.apply_chat_template(said, add_generation_prompt=opens, tokenize=False))


def token_ids(tokenizer: "PreTrainedTokenizerBase", text: str, hidden: Mapping[str, str]) -> list[int]:
    """Tokenise what a template has written; stand-ins become the text that they stand for, never a special token."""
    if not hidden:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    texts = {character: special for special, character in hidden.items()}
    special = specials(tokenizer, len(tokenizer))
    found: list[int] = []
    for piece in re.split(f"({special.pattern})", text):
        if special.fullmatch(piece):
            found.append(tokenizer.convert_tokens_to_ids(piece))
        elif piece:
            plain = replaced(piece, texts)
            found += tokenizer(plain, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return found


def stand_ins(tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn]) -> dict[str, str]:
    """Give a character that no turn holds to each special token whose text a turn holds."""
    words = "\n".join(turn["content"] for turn in turns)
    met = dict.fromkeys(specials(tokenizer, len(tokenizer)).findall(words))
    unused = (chr(code) for code in count(PRIVATE) if chr(code) not in words)
    return dict(zip(met, unused, strict=False))


def replaced(text: str, new: Mapping[str, str]) -> str:
    """Replace each key by its value, all at once."""
    if not new:
        return text
    longest = sorted(new, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest)), lambda match: new[match[0]], text)


@lru_cache(maxsize=16)
def specials(tokenizer: "PreTrainedTokenizerBase", size: int) -> re.Pattern[str]:
    """The texts that become special tokens, the longest first; `size` is the vocabulary's, which may grow."""
    texts = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    texts |= set(tokenizer.all_special_tokens)
    longest = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest)) or r"(?!)")
