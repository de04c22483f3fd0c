"""Conversations to token ids: training, evaluation and serving all tokenise here.

A conversation is a list of turns. It is written with the chat template in the model's folder, so no two stages see
different ids for the same text. A template must be additive: the text of a prompt must be a prefix of the text of the
prompt with its completion.

The text of a turn never becomes a special token. Where a turn contains the text of one (`<|im_end|>`), that text is
replaced by a placeholder while the template is filled in, and restored as plain text before it is tokenised.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from alignlab.errors import failure

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PRIVATE = 0xF0000  # the first code point of a Unicode range for private use

RUST_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")  # transformers' class, since version 5 and before

Placeholders = Mapping[str, str]  # the text of a special token to the character that stands in for it


class Turn(TypedDict):
    """A turn of a conversation, in the format of OpenAI, transformers and TRL."""

    role: Literal["system", "user", "assistant"]
    content: str


class Encoded(NamedTuple):
    """A prompt and a completion as token ids; the completion ends with the end-of-turn token."""

    prompt: list[int]
    completion: list[int]


def encode_prompt(tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn]) -> list[int]:
    """Return the token ids of a prompt, with the text that opens the assistant's turn."""
    placeholders = placeholders_for(tokenizer, turns)
    return token_ids(tokenizer, fill_template(tokenizer, turns, placeholders, opens=True), placeholders)


def encode(
    tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn], completion: str, *, tail: bool = False
) -> Encoded:
    """Return the token ids of a prompt and of its completion, which are those that a model has to produce.

    With `tail`, the completion is all that the template writes instead, as a reward model reads it.
    """
    answered: list[Turn] = [*turns, {"role": "assistant", "content": completion}]
    placeholders = placeholders_for(tokenizer, answered)
    before, prompt = open_turn(tokenizer, turns, placeholders)
    after = fill_template(tokenizer, answered, placeholders, opens=False)
    whole = token_ids(tokenizer, after, placeholders)
    if whole[: len(prompt)] == prompt:
        ids = whole[len(prompt) :]
    elif after.startswith(before):  # a token would span prompt and completion, which no model can produce
        ids = token_ids(tokenizer, after[len(before) :], placeholders)
    else:
        raise failure(
            "chat template",
            "the prompt's tokens change when the answer follows",
            "give a template whose generation prompt is how an assistant turn begins",
        )
    return Encoded(prompt, ids if tail else cut_after_end(ids, tokenizer.eos_token_id))


def open_turn(
    tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn], placeholders: Placeholders
) -> tuple[str, list[int]]:
    """Return the text and the token ids of a prompt that opens the assistant's turn.

    The last one is kept, since a pair's two completions follow the same prompt.
    """
    key = (tokenizer, len(tokenizer), str(tokenizer.chat_template), json.dumps([[*turns], [*placeholders.items()]]))
    if key not in _last_opened:
        text = fill_template(tokenizer, turns, placeholders, opens=True)
        _last_opened.clear()
        _last_opened[key] = (text, token_ids(tokenizer, text, placeholders))
    text, ids = _last_opened[key]
    return text, list(ids)


_last_opened: dict[tuple[Any, ...], tuple[str, list[int]]] = {}


def cut_after_end(ids: list[int], end: int | None) -> list[int]:
    """End a completion with its end-of-turn token; what a template writes after it is not learned."""
    if end is None:
        return ids
    return ids[: len(ids) - ids[::-1].index(end)] if end in ids else [*ids, end]


def fill_template(
    tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn], placeholders: Placeholders, *, opens: bool
) -> str:
    """Fill in the chat template; `opens` adds the text that opens the assistant's turn."""
    written = [{"role": turn["role"], "content": replace_all(turn["content"], placeholders)} for turn in turns]
    return str(tokenizer.apply_chat_template(written, add_generation_prompt=opens, tokenize=False))


def token_ids(tokenizer: "PreTrainedTokenizerBase", text: str, placeholders: Placeholders) -> list[int]:
    """Tokenise a filled-in template; placeholders become the plain text that they stand for."""
    if not placeholders:
        return plain_ids(tokenizer, text)
    texts = {character: special for special, character in placeholders.items()}
    special = special_texts(tokenizer, len(tokenizer))
    ids: list[int] = []
    for part in re.split(f"({special.pattern})", text):
        if special.fullmatch(part):
            ids.append(tokenizer.convert_tokens_to_ids(part))
        elif part:
            plain = replace_all(part, texts)
            ids += tokenizer(plain, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def plain_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Return the token ids of a text, as the tokenizer itself returns them.

    The Rust tokenizer is called without offsets, which takes half the time, where nothing is set on either that would
    change the ids.
    """
    owner = next((one.__name__ for one in type(tokenizer).__mro__ if "_encode_plus" in vars(one)), "")
    if owner in RUST_TOKENIZERS:
        backend: Any = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
        changes_ids = tokenizer.split_special_tokens or backend.encode_special_tokens
        if not (changes_ids or backend.truncation or backend.padding):
            return list(backend.encode_batch_fast([text], add_special_tokens=False)[0].ids)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def placeholders_for(tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn]) -> dict[str, str]:
    """Return an unused character for each special token whose text is in a turn."""
    text = "\n".join(turn["content"] for turn in turns)
    specials = dict.fromkeys(special_texts(tokenizer, len(tokenizer)).findall(text))
    unused = (chr(code) for code in count(PRIVATE) if chr(code) not in text)
    return dict(zip(specials, unused, strict=False))


def replace_all(text: str, new: Mapping[str, str]) -> str:
    """Replace each key by its value in one pass, longer keys first."""
    if not new:
        return text
    longest_first = sorted(new, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), lambda match: new[match[0]], text)


@lru_cache(maxsize=16)
def special_texts(tokenizer: "PreTrainedTokenizerBase", size: int) -> re.Pattern[str]:
    """Return a pattern of the texts of special tokens, longest first; `size` is the vocabulary's, which may grow."""
    texts = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    texts |= set(tokenizer.all_special_tokens)
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
