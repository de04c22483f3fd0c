"""Several answers of a model to each prompt, and which of them differ.

Each answer has its own random stream. Prompts of similar length are answered together, and which batch a prompt is in
does not depend on what was answered before: a run that was killed resumes with the same answers, to the last bit. The
keys and values of a prompt are computed once for all its answers.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alignlab.chat import Turn
from alignlab.models.fitting import in_batches
from alignlab.models.sampling import Completion, Sampling, draw_uniforms, neutral, sample_batch
from alignlab.models.truncation import encode_prompts, room_for_prompt
from alignlab.runtime import distributed
from alignlab.runtime.progress import progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Key = tuple[int, int]  # a seed and a row, which choose a random stream


class Answer(NamedTuple):
    """One of the different answers to a prompt."""

    text: str
    finished: bool  # the first of its copies ended by itself
    drawn: int  # how often it was drawn


def sample_several(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[Turn]],
    count: int,
    sampling: Sampling,
    key: Callable[[int, int], Key],
    wanted: Callable[[int], bool] = lambda row: True,
    setting: str = "max_new_tokens",
) -> Iterator[dict[int, list[Completion]]]:
    """Draw `count` completions of each prompt; yield those of each batch by the rows of its prompts.

    `key` chooses the random stream of a row and the number of its completion. A batch without a row that is `wanted`
    is left out. `setting` is the one that sets `max_new_tokens`, for messages.
    """
    room = room_for_prompt(model, sampling.max_new_tokens, setting)
    yield from draw_several(model, tokenizer, encode_prompts(tokenizer, prompts, room), count, sampling, key, wanted)


def draw_several(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ids: Sequence[Sequence[int]],
    count: int,
    sampling: Sampling,
    key: Callable[[int, int], Key],
    wanted: Callable[[int], bool] = lambda row: True,
) -> Iterator[dict[int, list[Completion]]]:
    """Draw `count` completions of each prompt of token ids, as `sample_several` does."""

    def draw_rows(rows: list[int]) -> list[list[Completion]]:
        keys = [key(row, number) for row in rows for number in range(count)]
        return draw(model, tokenizer, [ids[row] for row in rows], keys, sampling)

    with neutral(model), progress(len(ids), "sampling", "prompts") as advance:
        for batch in batches([len(prompt) for prompt in ids], sampling.batch_size):
            if any(wanted(row) for row in batch):
                for part, completions in in_batches(batch, len(batch), draw_rows, "sampling"):
                    yield dict(zip(part, completions, strict=True))
            advance(len(batch))


def batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Yield the rows of prompts in batches, the shortest first."""
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def draw(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ids: Sequence[Sequence[int]],
    keys: Sequence[Key],
    sampling: Sampling,
) -> list[list[Completion]]:
    """Draw the completions of one batch of prompts, [prompts][count]; keys [prompts * count]."""
    count = len(keys) // len(ids)
    uniforms = np.concatenate([draw_uniforms(seed, [row], sampling.max_new_tokens) for seed, row in keys])
    limits = np.full(len(keys), sampling.max_new_tokens)
    drawn = sample_batch(model, tokenizer, ids, uniforms, limits, sampling, count)
    return [drawn[start : start + count] for start in range(0, len(drawn), count)]


def sample_several_shared(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[Turn]],
    count: int,
    sampling: Sampling,
    key: Callable[[int, int], Key],
) -> list[list[Completion]]:
    """Draw `count` completions of each prompt, [prompts][count]; several processes share the work."""

    def sample_share(rows: list[int]) -> list[list[Completion]]:
        share = [prompts[row] for row in rows]
        completions: dict[int, list[Completion]] = {}
        for batch in sample_several(model, tokenizer, share, count, sampling, lambda k, number: key(rows[k], number)):
            completions |= batch
        return [completions[k] for k in range(len(rows))]

    return distributed.map_rows(len(prompts), sample_share)


def different(completions: Sequence[Completion]) -> list[Answer]:
    """Return the completions that differ by more than white space, in their order; empty ones are left out."""
    answers: dict[str, Answer] = {}
    for completion in completions:
        if key := " ".join(completion.text.split()):
            known = answers.get(key, Answer(completion.text, completion.finished, 0))
            answers[key] = known._replace(drawn=known.drawn + 1)
    return list(answers.values())
