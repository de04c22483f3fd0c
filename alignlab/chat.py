"""Conversations to token ids: training, evaluation and serving all tokenise here.

A conversation is a list of turns. It is written with the chat template in the model's folder, so no two stages see
different ids for the same text. A template must be additive: the text of a prompt must be a prefix of the text of the
prompt with its completion.

The text of a turn never becomes a control token. Where a turn contains the text of one (`<|im_end|>`), that text is
replaced by a placeholder while the template is filled in, and restored as plain text before it is tokenised. Only
`<think>` and `</think>` in an assistant's turn become the tokens that the model itself writes around its reasoning.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from alignlab.errors import failure

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PRIVATE = 0xF0000  # the first code point of a Unicode range for private use
PRIVATE_REASONING = 0xFF000  # another one, for the marks of reasoning
GUARDS = "\U0010fffd\U0010fffc"  # a number between them stands in for a control token that the template writes
MARKER = re.compile(r"\s*([<\[【].*[>\]】]|\|.+\|)\s*", re.DOTALL)  # the text of an added token that is no word
REASONING = ("<think>", "</think>")
OPENED = re.compile(r"<think>\s*\Z")

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
    if OPENED.search(before) and (opened := opened_reasoning(tokenizer, turns, placeholders, before)):
        answered[-1] = {"role": "assistant", "content": continue_reasoning(opened, completion)}
    after = fill_answered(tokenizer, answered, placeholders, before)
    whole = token_ids(tokenizer, after, placeholders)
    if whole[: len(prompt)] == prompt:
        ids = whole[len(prompt) :]
    elif after.startswith(before):  # a token would span prompt and completion, which no model can produce
        ids = token_ids(tokenizer, after[len(before) :], placeholders)
    else:
        raise failure(
            "chat template",
            "the prompt's tokens change when the answer follows",
            "give a template whose generation prompt is how an assistant turn begins: model.chat_template=<file>",
        )
    return Encoded(prompt, ids if tail else cut_after_end(ids, tokenizer.eos_token_id))


def fill_answered(
    tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn], placeholders: Placeholders, before: str
) -> str:
    """Fill in the template for a conversation that ends with an answer, whose reasoning stays in it.

    Some templates remove reasoning from every answer, as it is removed from earlier ones. The marks of reasoning are
    then hidden from the template.
    """
    after = fill_template(tokenizer, turns, placeholders, opens=False)
    answer = turns[-1]["content"]
    reasoning = answer.rpartition(REASONING[1])[0].removeprefix(REASONING[0]).strip()
    kept = REASONING[1] not in answer or (after.startswith(before) and replace_all(reasoning, placeholders) in after)
    return after if kept else fill_template(tokenizer, turns, placeholders, opens=False, hides_reasoning=True)


def opened_reasoning(
    tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn], placeholders: Placeholders, before: str
) -> str:
    """Return the mark of reasoning with which a template opens the assistant's turn; empty where a turn wrote it."""
    closed = fill_template(tokenizer, turns, placeholders, opens=False)
    match = OPENED.search(before.removeprefix(closed))
    return match[0] if match else ""


def continue_reasoning(opened: str, completion: str) -> str:
    """Return a completion after `opened`, the mark that begins reasoning; one without reasoning gets an empty one."""
    if completion.lstrip().startswith(REASONING[0]):
        return opened + completion.lstrip().removeprefix(REASONING[0]).lstrip("\n")
    return f"{opened}{completion}" if REASONING[1] in completion else f"{opened}\n{REASONING[1]}\n\n{completion}"


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
    return ids[: ids.index(end) + 1] if end in ids else [*ids, end]


def fill_template(
    tokenizer: "PreTrainedTokenizerBase",
    turns: Sequence[Turn],
    placeholders: Placeholders,
    *,
    opens: bool,
    hides_reasoning: bool = False,
) -> str:
    """Fill in the chat template; `opens` adds the text that opens the assistant's turn.

    Raises a `Failure` where the template refuses the conversation.
    """
    from jinja2 import TemplateError

    in_answers = {text: character for text, character in placeholders.items() if text not in REASONING}
    written = [
        {
            "role": turn["role"],
            "content": replace_all(turn["content"], in_answers if turn["role"] == "assistant" else placeholders),
        }
        for turn in turns
    ]
    marks: dict[str, str] = {}
    if hides_reasoning:
        marks = dict(zip(REASONING, unused(written[-1]["content"], PRIVATE_REASONING), strict=False))
        written[-1]["content"] = replace_all(written[-1]["content"], marks)
    try:
        text = str(tokenizer.apply_chat_template(written, add_generation_prompt=opens, tokenize=False))
    except (TemplateError, TypeError) as error:
        what = f"it refuses a conversation ({' '.join(str(error).split())[:160]})"
        raise failure("chat template", what, "give another one: model.chat_template=chatml, or a file") from error
    return replace_all(text, {character: mark for mark, character in marks.items()})


def token_ids(tokenizer: "PreTrainedTokenizerBase", text: str, placeholders: Placeholders) -> list[int]:
    """Tokenise a filled-in template; placeholders become the plain text that they stand for."""
    if not placeholders:
        return plain_ids(tokenizer, text)
    texts = {character: special for special, character in placeholders.items()}
    control = control_texts(tokenizer, len(tokenizer))
    if (guarded := guarded_tokenizer(tokenizer, len(tokenizer))) and not set(GUARDS) & set(text):
        plain = replace_all(control.sub(lambda match: guarded.guards[match[0]], text), texts)
        return list(guarded.backend.encode_batch_fast([plain], add_special_tokens=False)[0].ids)
    ids: list[int] = []
    for part in re.split(f"({control.pattern})", text):
        if control.fullmatch(part):
            ids.append(tokenizer.convert_tokens_to_ids(part))
        elif part:
            plain = replace_all(part, texts)
            ids += tokenizer(plain, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


class Guarded(NamedTuple):
    """A tokenizer that knows its control tokens by other texts, which no turn contains: `guards`, by token."""

    backend: Any
    guards: dict[str, str]


@lru_cache(maxsize=4)
def guarded_tokenizer(tokenizer: "PreTrainedTokenizerBase", size: int) -> Guarded | None:
    """Return a tokenizer that reads the texts of control tokens as plain text; None where it cannot be made.

    A text is tokenised in one piece with it, so that prompts have the ids that the tokenizer itself gives them.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    from tokenizers import Tokenizer

    tree = json.loads(backend.to_str())
    known = [token["content"] for token in tree["added_tokens"]]
    pattern = control_texts(tokenizer, size)
    guards = {text: str(number).join(GUARDS) for number, text in enumerate(known) if pattern.fullmatch(text)}
    for token in tree["added_tokens"]:
        token["content"] = guards.get(token["content"], token["content"])
    rename_pieces(tree["model"], guards)
    tree["post_processor"] = tree["truncation"] = tree["padding"] = None
    probe = "".join(f"a {text}b\n{text} {text}c" for text in guards)
    try:
        guarded = Guarded(Tokenizer.from_str(json.dumps(tree)), guards)
        got = guarded.backend.encode(replace_all(probe, guards), add_special_tokens=False).ids
    except Exception as error:
        if type(error) is not Exception:  # the Rust library raises no narrower class
            raise
        return None
    return guarded if got == plain_ids(tokenizer, probe) else None


def rename_pieces(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """Rename pieces in the vocabulary of a model of `tokenizers`, which is a mapping or a list of pairs."""
    vocabulary = model["vocab"]
    if unknown := model.get("unk_token"):
        model["unk_token"] = names.get(unknown, unknown)
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]


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
    """Return an unused character for each control token whose text is in a turn."""
    text = "\n".join(turn["content"] for turn in turns)
    control = dict.fromkeys(control_texts(tokenizer, len(tokenizer)).findall(text))
    return dict(zip(control, unused(text, PRIVATE), strict=False))


def unused(text: str, start: int) -> Iterator[str]:
    """Yield the characters from a code point on that a text does not contain."""
    return (chr(code) for code in count(start) if chr(code) not in text)


def replace_all(text: str, new: Mapping[str, str]) -> str:
    """Replace each key by its value in one pass, longer keys first."""
    if not new:
        return text
    longest_first = sorted(new, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), lambda match: new[match[0]], text)


@lru_cache(maxsize=16)
def reasoning_ids(tokenizer: "PreTrainedTokenizerBase", size: int) -> dict[int, str]:
    """Return the marks of reasoning that are special tokens, by id; decoding leaves special tokens out."""
    added = tokenizer.added_tokens_decoder.items()
    return {number: str(token) for number, token in added if token.special and str(token) in REASONING}


@lru_cache(maxsize=16)
def control_texts(tokenizer: "PreTrainedTokenizerBase", size: int) -> re.Pattern[str]:
    """Return a pattern of the texts of control tokens, longest first; `size` is the vocabulary's, which may grow.

    These are the special tokens, and other added tokens that look like a mark: `<|user|>`, `[INST]`.
    """
    added = tokenizer.added_tokens_decoder.values()
    texts = {str(token) for token in added if token.special or MARKER.fullmatch(str(token))}
    texts |= set(tokenizer.all_special_tokens)
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
