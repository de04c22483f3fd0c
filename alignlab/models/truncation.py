"""Cut prompts and completions to the tokens that a model or a setting allows.

A prompt loses its beginning, because its end is what a completion answers. A completion loses its end, and only if the
prompt is cut to its last token already.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from alignlab.chat import Encoded
from alignlab.errors import failure

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger("alignlab")


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


def cut_prompts(prompts: Sequence[list[int]], room: int | None) -> list[list[int]]:
    """Return the last `room` tokens of each prompt, and warn about those that are longer."""
    if room is not None and (count := sum(len(prompt) > room for prompt in prompts)):
        text = "%d of %d prompts are longer than %d tokens; their oldest part is left out"
        log.warning(text, count, len(prompts), room)
    return [cut_prompt(prompt, room) for prompt in prompts]


def cut_prompt(prompt: list[int], room: int | None) -> list[int]:
    """Return the last `room` tokens of a prompt."""
    return prompt if room is None else prompt[-room:]


def cut_row(row: Encoded, max_length: int | None) -> Encoded:
    """Cut prompt and completion to `max_length` tokens together; at least one token of the prompt stays."""
    if max_length is None:
        return row
    completion = row.completion[: max_length - 1]
    return Encoded(row.prompt[-(max_length - len(completion)) :], completion)


def cut_sides(row: Encoded, max_length: int) -> Encoded:
    """Cut prompt and completion to `max_length` tokens each, as an encoder-decoder reads them."""
    return Encoded(row.prompt[-max_length:], row.completion[:max_length])


def cut_pair(chosen: Encoded, rejected: Encoded, max_length: int) -> tuple[list[int], list[int], list[int]]:
    """Cut a pair to prompt, chosen and rejected, so that the prompt fits into `max_length` with either completion."""
    longest = max(chosen, rejected, key=lambda row: len(row.completion))
    prompt = cut_row(longest, max_length).prompt
    room = max_length - len(prompt)
    return prompt, chosen.completion[:room], rejected.completion[:room]


def cut_before_end(
    prompt: Sequence[int], completions: Sequence[Sequence[int]], max_length: int
) -> tuple[list[int], list[list[int]]]:
    """Cut a prompt and its completions so that the prompt fits into `max_length` with each of them.

    A completion that is too long by itself keeps its last token, the end of the turn, where a reward is read.
    """
    longest = min(max(map(len, completions)), max_length - 1)
    kept = list(prompt[-(max_length - longest) :])
    room = max_length - len(kept)
    return kept, [[*ids] if len(ids) <= room else [*ids[: room - 1], ids[-1]] for ids in completions]
