"""Cut prompts and completions to the tokens that a model or a setting allows.

A prompt loses its oldest turns first, because its end is what a completion answers; its system turn stays, as does the
token that begins a text. A completion loses its end where the prompt has only its share of the tokens left.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignlab.chat import Encoded, Turn, encode, encode_prompt
from alignlab.errors import failure

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger("alignlab")

PROMPT_SHARE = 0.25  # of the tokens of a row, where no setting says another (method.prompt_share)


def context_length(settings: Any) -> int | None:
    """Return the number of positions of a model's settings; None where they name no limit."""
    length: int | None = getattr(settings.get_text_config(), "max_position_embeddings", None)
    return length


def room_for_prompt(model: "PreTrainedModel", max_new_tokens: int, setting: str) -> int | None:
    """Return the tokens that a prompt may have, None for any number; `setting` is the one that names the rest.

    Raises a `Failure` where a completion of `max_new_tokens` leaves no room for a prompt.
    """
    context = context_length(model.config)
    if context is not None and context <= max_new_tokens:
        what = f"{max_new_tokens} leaves no room for a prompt in the model's context of {context} tokens"
        raise failure(setting, what, f"use less than {context}")
    return None if context is None else context - max_new_tokens


def encode_prompts(
    tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Sequence[Turn]], room: int | None
) -> list[list[int]]:
    """Return prompts as token ids, at most `room` each, and warn about those that are longer."""
    ids = [encode_prompt(tokenizer, turns) for turns in prompts]
    long = [] if room is None else [row for row, prompt in enumerate(ids) if len(prompt) > room]
    if long:
        text = "%d of %d prompts are longer than %d tokens; their oldest turns are left out"
        log.warning(text, len(long), len(prompts), room)
    for row in long:
        ids[row] = cut_prompt(encode_prompt(tokenizer, cut_turns(tokenizer, prompts[row], room)), room)
    return ids


def encode_within(
    tokenizer: "PreTrainedTokenizerBase",
    turns: Sequence[Turn],
    completions: Sequence[str],
    max_length: int | None,
    prompt_share: float = PROMPT_SHARE,
    finished: Sequence[bool] | None = None,
    **options: Any,
) -> tuple[list[Turn], list[Encoded]]:
    """Encode a prompt with each of its completions; it loses its oldest turns where it does not fit with the longest.

    Return the prompt's remaining turns, and the token ids of prompt and completion for each completion. A completion
    that is not `finished` gets no end-of-turn token.

    A completion may still be too long, which the caller cuts: the prompt keeps `prompt_share` of `max_length`.
    `options` are those of `alignlab.chat.encode`.
    """
    ends = finished or [True] * len(completions)

    def encode_all(kept: Sequence[Turn]) -> list[Encoded]:
        rows = [encode(tokenizer, kept, completion, **options) for completion in completions]
        return [row if end else without_end(row, tokenizer) for row, end in zip(rows, ends, strict=True)]

    rows = encode_all(turns)
    longest = max(len(row.completion) for row in rows)
    if max_length is None or len(rows[0].prompt) + longest <= max_length:
        return list(turns), rows
    room = max(max_length - longest, kept_tokens(len(rows[0].prompt), max_length, prompt_share))
    cut = cut_turns(tokenizer, turns, room)
    return cut, encode_all(cut)


def without_end(row: Encoded, tokenizer: "PreTrainedTokenizerBase") -> Encoded:
    """Return a row whose completion has no end-of-turn token."""
    ends = bool(row.completion) and row.completion[-1] == tokenizer.eos_token_id
    return Encoded(row.prompt, row.completion[:-1]) if ends else row


def cut_turns(tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Turn], room: int | None) -> list[Turn]:
    """Return a prompt that has at most `room` tokens: without its oldest turns, but with its system turn.

    It begins with a user's turn. If the last one alone is too long, the beginning of its text is left out, and the
    system turn only if there is no room for both.
    """
    if room is None or len(encode_prompt(tokenizer, turns)) <= room:
        return list(turns)
    system = [turn for turn in turns[:1] if turn["role"] == "system"]
    starts = [place for place, turn in enumerate(turns) if turn["role"] == "user" and place > len(system)]
    for start in starts:
        kept = [*system, *turns[start:]]
        if len(encode_prompt(tokenizer, kept)) <= room:
            return kept
    last = list(turns[starts[-1] if starts else len(system) :])
    return cut_text(tokenizer, system, last, room) or cut_text(tokenizer, [], last, room) or last


def cut_text(
    tokenizer: "PreTrainedTokenizerBase", system: list[Turn], last: list[Turn], room: int
) -> list[Turn] | None:
    """Return a prompt whose last turns have lost the beginning of their text; None where nothing would be left."""
    ids = tokenizer(last[0]["content"], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    kept = [*system, *last]
    while (excess := len(encode_prompt(tokenizer, kept)) - room) > 0:
        ids = ids[excess:]
        if not ids:
            return None
        text = tokenizer.decode(ids, clean_up_tokenization_spaces=False).lstrip("\ufffd")
        kept = [*system, {"role": last[0]["role"], "content": text}, *last[1:]]
    return kept


def cut_prompt(prompt: list[int], room: int | None) -> list[int]:
    """Return the last `room` tokens of a prompt."""
    return prompt if room is None else prompt[-room:]


def kept_tokens(prompt: int, max_length: int, prompt_share: float) -> int:
    """Return how many of a prompt's tokens no completion may displace: its share of `max_length`, and at least one."""
    return min(prompt, max(1, int(prompt_share * max_length)))


def cut_row(row: Encoded, max_length: int | None, prompt_share: float = PROMPT_SHARE) -> Encoded:
    """Cut prompt and completion to `max_length` tokens together; see `kept_tokens` for what stays of the prompt."""
    if max_length is None:
        return row
    completion = row.completion[: max_length - kept_tokens(len(row.prompt), max_length, prompt_share)]
    return Encoded(row.prompt[-(max_length - len(completion)) :], completion)


def cut_sides(row: Encoded, max_length: int) -> Encoded:
    """Cut prompt and completion to `max_length` tokens each, as an encoder-decoder reads them."""
    return Encoded(row.prompt[-max_length:], row.completion[:max_length])


def cut_pair(
    chosen: Encoded, rejected: Encoded, max_length: int, prompt_share: float = PROMPT_SHARE
) -> tuple[list[int], list[int], list[int]]:
    """Cut a pair to prompt, chosen and rejected, so that the prompt fits into `max_length` with either completion."""
    longest = max(chosen, rejected, key=lambda row: len(row.completion))
    prompt = cut_row(longest, max_length, prompt_share).prompt
    room = max_length - len(prompt)
    return prompt, chosen.completion[:room], rejected.completion[:room]


def encode_pair(
    tokenizer: "PreTrainedTokenizerBase", pair: Mapping[str, Any], max_length: int, prompt_share: float
) -> tuple[list[int], list[int], list[int]]:
    """Return the token ids of a pair's prompt and of its chosen and its rejected completion, cut to `max_length`."""
    sides = ("chosen", "rejected")
    finished = [pair.get(f"{side}_finished", True) for side in sides]
    completions = [pair[side] for side in sides]
    _, (chosen, rejected) = encode_within(tokenizer, pair["prompt"], completions, max_length, prompt_share, finished)
    return cut_pair(chosen, rejected, max_length, prompt_share)


def cut_before_end(
    prompt: Sequence[int], completions: Sequence[Sequence[int]], max_length: int, prompt_share: float = PROMPT_SHARE
) -> tuple[list[int], list[list[int]]]:
    """Cut a prompt and its completions so that the prompt fits into `max_length` with each of them.

    A completion that is too long by itself keeps its last token, the end of the turn, where a reward is read.
    """
    longest = min(max(map(len, completions)), max_length - kept_tokens(len(prompt), max_length, prompt_share))
    kept = list(prompt[-(max_length - longest) :])
    room = max_length - len(kept)
    return kept, [[*ids] if len(ids) <= room else [*ids[: room - 1], ids[-1]] for ids in completions]
