"""Sampling: from prompts to completions.

Sampling is exact: it uses the model's distribution at a temperature, with no filter but `top_p`, and ignores the
generation settings of the model. Each prompt has its own random stream, one number a token, which depends on the seed
and the prompt's row alone. So the batch of a prompt changes nothing, and two models that get the same prompts and seed
get the same random numbers, which narrows paired differences. A limit for each completion (`max_new_tokens_from`) is
drawn in the same way; a completion that is cut at its limit is not finished.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from alignlab.chat import Turn, reasoning_ids
from alignlab.models.decoding import decode, is_plain_decoder
from alignlab.models.fitting import in_batches
from alignlab.models.token_choice import invert, nucleus, shares_of
from alignlab.models.truncation import encode_prompts, room_for_prompt
from alignlab.runtime import distributed
from alignlab.runtime.progress import progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LIMIT_STREAM = 1 << 63  # added to the seed, so that limits and tokens have separate random streams


class Sampling(NamedTuple):
    """How completions are sampled; with `max_new_tokens_from`, each has a limit between it and `max_new_tokens`."""

    temperature: float
    top_p: float
    max_new_tokens: int
    batch_size: int
    max_new_tokens_from: int | None = None


class Completion(NamedTuple):
    """A sampled completion: its text, whether it ended by itself, and its token ids with the end token."""

    text: str
    finished: bool
    tokens: tuple[int, ...]
    logps: tuple[float, ...] | None = None  # of the tokens, by an engine that computes unlike the trainer


def sample(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[Turn]],
    sampling: Sampling,
    seed: int,
) -> list[Completion]:
    """Sample one completion for each prompt, in their order; several processes share the work.

    A prompt that leaves no room for `max_new_tokens` in the model's context loses its oldest turns.
    """
    room = room_for_prompt(model, sampling.max_new_tokens, "evaluation.max_new_tokens")
    ids = encode_prompts(tokenizer, prompts, room)
    return distributed.map_rows(len(ids), lambda rows: sample_token_ids(model, tokenizer, ids, sampling, seed, rows))


def sample_token_ids(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seed: int,
    rows: Sequence[int] | None = None,
) -> list[Completion]:
    """Sample one completion for each prompt of token ids, or for those in `rows`.

    Neighbours with the same prompt, as the groups of GRPO are, share its keys and values.
    """
    limits = draw_limits(seed, len(ids), sampling)
    sampled = range(len(ids)) if rows is None else rows
    order = sorted(sampled, key=lambda row: (len(ids[row]), row))
    completions: dict[int, Completion] = {}
    with neutral(model), progress(len(order), "sampling", "completions") as advance:

        def complete(batch: list[int]) -> list[Completion]:
            runs = {len(list(run)) for _, run in groupby(ids[row] for row in batch)}
            copies = runs.pop() if len(runs) == 1 else 1
            prompts = [ids[row] for row in batch[::copies]]
            uniforms = draw_uniforms(seed, batch, sampling.max_new_tokens)
            return sample_batch(model, tokenizer, prompts, uniforms, limits[batch], sampling, copies)

        for batch, answers in in_batches(order, sampling.batch_size, complete, "sampling"):
            completions.update(zip(batch, answers, strict=True))
            advance(len(batch))
    return [completions[row] for row in sampled]


def sample_batch(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[int]],
    uniforms: "np.ndarray",
    limits: "np.ndarray",
    sampling: Sampling,
    copies: int = 1,
    watch: Callable[[torch.Tensor], None] | None = None,
) -> list[Completion]:
    """Sample completions for one batch; uniforms are [batch, max_new_tokens], limits [batch] tokens.

    With `copies`, each prompt has so many neighbouring completions, and a plain decoder computes it once. `watch` is
    called with the tokens of each step.
    """
    pad, ends = special_tokens(model, tokenizer)
    width = max(map(len, prompts))
    start = 1 if model.config.is_encoder_decoder else width  # the tokens before the first new one
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    masked = masked_tokens(tokenizer, ends)
    sampler = InversionSampler(torch.from_numpy(uniforms).to(model.device), start, sampling, masked, watch)
    row_limits = torch.from_numpy(limits).to(model.device)
    with torch.inference_mode():
        if is_plain_decoder(model):
            end_ids = torch.tensor(sorted(ends), device=model.device)
            tokens = decode(model, ids, mask, sampler.pick, end_ids, row_limits, copies)
        else:
            ids, mask = (each.repeat_interleave(copies, 0) for each in (ids, mask))
            tokens = generate(model, ids, mask, sampler, row_limits, pad, ends)
    return [
        to_completion(tokenizer, row[:limit], ends) for row, limit in zip(tokens.tolist(), limits.tolist(), strict=True)
    ]


def generate(
    model: Any,
    ids: torch.Tensor,
    mask: torch.Tensor,
    sampler: "InversionSampler",
    limits: torch.Tensor,
    pad: int,
    ends: set[int],
) -> torch.Tensor:
    """Return new tokens by transformers' `generate`, for models that are no plain decoders."""
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=sampler.sampling.max_new_tokens,
        pad_token_id=pad,
        eos_token_id=sorted(ends),
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )
    tokens: torch.Tensor = model.generate(
        input_ids=ids,
        attention_mask=mask,
        generation_config=settings,
        logits_processor=LogitsProcessorList([sampler]),
        stopping_criteria=StoppingCriteriaList([RowLimits(limits + sampler.start)]),
        synced_gpus=False,  # processes sample different rows, and do not wait for each other
    )
    return tokens[:, sampler.start :]


class RowLimits(StoppingCriteria):  # type: ignore[misc]
    """Stops each row at its own length, [batch]."""

    def __init__(self, limits: torch.Tensor) -> None:
        self.limits = limits

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return input_ids.shape[1] >= self.limits


class InversionSampler(LogitsProcessor):  # type: ignore[misc]
    """Masks all tokens but the one that the row's random number picks, so that the greedy choice is a sample."""

    def __init__(
        self,
        uniforms: torch.Tensor,
        start: int,
        sampling: Sampling,
        masked: list[int],
        watch: Callable[[torch.Tensor], None] | None = None,
    ) -> None:
        self.uniforms, self.start, self.sampling, self.masked = uniforms, start, sampling, masked
        self.watch = watch or ignore_tokens

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(len(scores), device=scores.device)
        picked = self.pick(scores, input_ids.shape[1] - self.start, rows)
        return torch.full_like(scores, -torch.inf, dtype=torch.float32).scatter(1, picked[:, None], 0.0)

    def pick(self, scores: torch.Tensor, step: int, rows: torch.Tensor) -> torch.Tensor:
        """Pick tokens, [batch], by scores [batch, vocabulary]; `rows` are their numbers in the whole batch."""
        shares = shares_of(scores, self.masked, self.sampling.temperature)
        picked = invert(nucleus(shares, self.sampling.top_p), self.uniforms[rows, step])
        self.watch(picked)
        return picked


def ignore_tokens(_: torch.Tensor) -> None:
    """Do nothing with the tokens of a step."""


def draw_uniforms(seed: int, rows: Iterable[int], columns: int) -> "np.ndarray":
    """Return random numbers in [0, 1), [rows, columns]; those of a row depend on the seed and its number alone."""
    streams = [np.random.Generator(np.random.Philox(key=[seed, row])).random(columns) for row in rows]
    return np.stack(streams) if streams else np.zeros((0, columns))


def draw_limits(seed: int, rows: int, sampling: Sampling) -> "np.ndarray":
    """Return the most new tokens of each row, [rows]: drawn uniformly between both bounds, or `max_new_tokens`.

    The limit of a row depends on the seed and its number alone.
    """
    least = sampling.max_new_tokens_from
    if least is None:
        return np.full(rows, sampling.max_new_tokens)
    keys = [np.array([seed + LIMIT_STREAM, row], np.uint64) for row in range(rows)]  # a list would be rounded
    uniforms = np.array([np.random.Generator(np.random.Philox(key=key)).random() for key in keys])
    return least + (uniforms * (sampling.max_new_tokens + 1 - least)).astype(int)


def to_completion(tokenizer: "PreTrainedTokenizerBase", ids: list[int], ends: set[int]) -> Completion:
    """Cut a row of new tokens at its first end token, and decode its text."""
    end = next((index for index, token in enumerate(ids) if token in ends), None)
    kept = ids if end is None else ids[: end + 1]
    return Completion(text_of(tokenizer, kept[:end]).strip(), end is not None, tuple(kept))


def text_of(tokenizer: "PreTrainedTokenizerBase", ids: list[int]) -> str:
    """Decode the tokens of a completion without special ones; the marks of reasoning stay, as its words do."""
    marks = reasoning_ids(tokenizer, len(tokenizer))
    places = [place for place, token in enumerate(ids) if token in marks]
    starts, stops = [0, *(place + 1 for place in places)], [*places, len(ids)]
    parts = [
        tokenizer.decode(ids[start:stop], skip_special_tokens=True) for start, stop in zip(starts, stops, strict=True)
    ]
    return parts[0] + "".join(marks[ids[place]] + part for place, part in zip(places, parts[1:], strict=True))


def special_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> tuple[int, set[int]]:
    """Return the pad token, and the tokens that end a completion by the tokenizer's or the model's settings."""
    eos = model.generation_config.eos_token_id if model.generation_config else None
    ends = {*(eos if isinstance(eos, list) else [eos]), tokenizer.eos_token_id} - {None}
    pad = tokenizer.pad_token_id
    return (next(iter(ends)) if pad is None else pad), ends


def masked_tokens(tokenizer: "PreTrainedTokenizerBase", ends: set[int]) -> list[int]:
    """Return the tokens that are never sampled: padding and beginning of text, unless they end a completion."""
    return sorted({tokenizer.pad_token_id, tokenizer.bos_token_id} - {None} - ends)


@contextmanager
def neutral(model: "PreTrainedModel") -> Iterator[None]:
    """Ignore the model's generation settings (penalties, filters, lengths) but its end tokens, inside the block."""
    settings, training = model.generation_config, model.training
    plain = GenerationConfig()
    plain.eos_token_id = copy.copy(settings.eos_token_id) if settings else None
    model.generation_config = plain
    model.eval()
    try:
        yield
    finally:
        model.generation_config = settings
        model.train(training)
