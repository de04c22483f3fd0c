"""Prompts to completions.

Sampling is exact: the model's own distribution at a temperature, with no filter but `top_p`, and whatever the
model's generation settings say is put aside. Each prompt has its own stream of random numbers, one a token, taken
from the seed and the prompt's place in the list: the batch that a prompt is answered in changes nothing, and two
models that are asked the same prompts with the same seed meet the same luck, which narrows paired differences. A
length sampler draws each completion's own limit in the same way; one that is cut there did not come to its end.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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

from alignlab.chat import Turn, encode_prompt
from alignlab.models.decoding import decode, is_plain_decoder
from alignlab.models.truncation import cut_prompts, room_for_prompt
from alignlab.runtime import distributed
from alignlab.runtime.progress import progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Sampling(NamedTuple):
    """How completions are drawn; with `max_new_tokens_from`, each has a limit of its own, from there to the largest."""

    temperature: float
    top_p: float
    max_new_tokens: int
    batch_size: int
    max_new_tokens_from: int | None = None


class Completion(NamedTuple):
    """What a model answered: clean text, whether it came to an end by itself, and its token ids with that end."""

    text: str
    finished: bool
    tokens: tuple[int, ...]


def sample(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[Turn]],
    sampling: Sampling,
    seed: int,
) -> list[Completion]:
    """Draw one completion for each prompt, in the order of the prompts; several processes share the work.

    A prompt that leaves no room for `max_new_tokens` in the model's context loses its oldest tokens.
    """
    room = room_for_prompt(model, sampling.max_new_tokens, "evaluation.max_new_tokens")
    ids = cut_prompts([encode_prompt(tokenizer, turns) for turns in prompts], room)
    return distributed.divided(len(ids), lambda own: draw_all(model, tokenizer, ids, sampling, seed, own))


def draw_all(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seed: int,
    rows: Sequence[int] | None = None,
) -> list[Completion]:
    """Sample one completion for each prompt of token ids, or for those in `rows`."""
    luck, most = uniforms(seed, len(ids), sampling.max_new_tokens), limits(seed, len(ids), sampling)
    sampled = range(len(ids)) if rows is None else rows
    order = sorted(sampled, key=lambda row: (len(ids[row]), row))
    completions: dict[int, Completion] = {}
    with neutral(model), progress(len(order), "sampling", "completions") as advance:
        for start in range(0, len(order), sampling.batch_size):
            batch = order[start : start + sampling.batch_size]
            answers = answer(model, tokenizer, [ids[row] for row in batch], luck[batch], most[batch], sampling)
            completions.update(zip(batch, answers, strict=True))
            advance(len(batch))
    return [completions[row] for row in sampled]


def answer(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[int]],
    luck: "np.ndarray",
    most: "np.ndarray",
    sampling: Sampling,
    copies: int = 1,
) -> list[Completion]:
    """Answer one batch: prompts are padded on the left; luck [batch, max_new_tokens], most [batch] tokens.

    With `copies`, each prompt is answered so many times in a row, and computed once where the model is a plain decoder.
    """
    pad, ends = special_tokens(model, tokenizer)
    width = max(map(len, prompts))
    begun = 1 if model.config.is_encoder_decoder else width  # what stands before the first new token
    ids = torch.tensor([[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    draw = Draw(torch.from_numpy(luck).to(model.device), begun, sampling, never_sampled(tokenizer, ends))
    stops = torch.from_numpy(most).to(model.device)
    with torch.inference_mode():
        if is_plain_decoder(model):
            whole = decode(model, ids, mask, draw.pick, torch.tensor(sorted(ends), device=model.device), stops, copies)
        else:
            ids, mask = (one.repeat_interleave(copies, 0) for one in (ids, mask))
            whole = generated(model, ids, mask, draw, stops, pad, ends)
    return [completion(tokenizer, row[:limit], ends) for row, limit in zip(whole.tolist(), most.tolist(), strict=True)]


def generated(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, draw: "Draw", stops: torch.Tensor, pad: int, ends: set[int]
) -> torch.Tensor:
    """The new tokens by transformers' own `generate`, for models that are no plain decoders."""
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=draw.sampling.max_new_tokens,
        pad_token_id=pad,
        eos_token_id=sorted(ends),
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )
    whole: torch.Tensor = model.generate(
        input_ids=ids,
        attention_mask=mask,
        generation_config=settings,
        logits_processor=LogitsProcessorList([draw]),
        stopping_criteria=StoppingCriteriaList([Limits(stops + draw.width)]),
        synced_gpus=False,  # no process waits for another one's rows
    )
    return whole[:, draw.width :]


class Limits(StoppingCriteria):  # type: ignore[misc]
    """Stops each row at a length of its own, [batch]."""

    def __init__(self, most: torch.Tensor) -> None:
        self.most = most

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return input_ids.shape[1] >= self.most


class Draw(LogitsProcessor):  # type: ignore[misc]
    """Leaves only the token that the prompt's random number points at, so that the greedy choice is a sample."""

    def __init__(self, luck: torch.Tensor, width: int, sampling: Sampling, never: list[int]) -> None:
        self.luck, self.width, self.sampling, self.never = luck, width, sampling, never

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        rows = torch.arange(len(scores), device=scores.device)
        drawn = self.pick(scores, input_ids.shape[1] - self.width, rows)
        return torch.full_like(scores, -torch.inf, dtype=torch.float32).scatter(1, drawn[:, None], 0.0)

    def pick(self, scores: torch.Tensor, step: int, rows: torch.Tensor) -> torch.Tensor:
        """Pick tokens, [batch], by scores [batch, vocabulary]; rows are their places in the whole batch."""
        scores = scores.float()
        scores[:, self.never] = -torch.inf
        shares = nucleus(torch.softmax(scores.double() / self.sampling.temperature, dim=-1), self.sampling.top_p)
        return draw(shares, self.luck[rows, step])


def draw(shares: torch.Tensor, luck: torch.Tensor) -> torch.Tensor:
    """Pick by inversion: the first token whose cumulated share exceeds the number. shares [batch, vocabulary]."""
    heaped = shares.cumsum(dim=-1)
    picked = torch.searchsorted(heaped, luck[:, None] * heaped[:, -1:], right=True)[:, 0]
    last = shares.shape[-1] - 1
    if (picked > last).any():  # rounding points past the end: the last token that may be drawn
        picked = torch.minimum(picked, last - shares.flip(-1).gt(0).long().argmax(dim=-1))
    return picked


def nucleus(shares: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keep the fewest likeliest tokens whose shares reach `top_p` (Holtzman et al. 2020); 1 keeps all."""
    if top_p >= 1:
        return shares
    ranked, order = shares.sort(dim=-1, descending=True)
    kept = ranked.cumsum(dim=-1) - ranked < top_p
    return torch.zeros_like(shares).scatter(-1, order, ranked * kept)


def uniforms(seed: int, rows: int, columns: int) -> "np.ndarray":
    """Random numbers in [0, 1), [rows, columns]; a row depends on the seed and its place alone."""
    return uniforms_of(seed, range(rows), columns)


def uniforms_of(seed: int, places: Iterable[int], columns: int) -> "np.ndarray":
    """The random numbers of some rows, [places, columns]."""
    drawn = [np.random.Generator(np.random.Philox(key=[seed, row])).random(columns) for row in places]
    return np.stack(drawn) if drawn else np.zeros((0, columns))


def limits(seed: int, rows: int, sampling: Sampling) -> "np.ndarray":
    """The most new tokens of each row, [rows]: drawn evenly between two bounds, both included, or the same for all.

    A row's limit depends on the seed and its place alone, and is drawn apart from its luck.
    """
    least = sampling.max_new_tokens_from
    if least is None:
        return np.full(rows, sampling.max_new_tokens)
    keys = [np.array([seed + LIMITS, row], np.uint64) for row in range(rows)]  # a list of both would be rounded
    drawn = np.array([np.random.Generator(np.random.Philox(key=key)).random() for key in keys])
    return least + (drawn * (sampling.max_new_tokens + 1 - least)).astype(int)


LIMITS = 1 << 63  # added to a seed, so that limits and luck have streams of their own


def completion(tokenizer: "PreTrainedTokenizerBase", ids: list[int], ends: set[int]) -> Completion:
    """Cut a row of new tokens at its first end token and put it into words."""
    end = next((place for place, token in enumerate(ids) if token in ends), None)
    kept = ids if end is None else ids[: end + 1]
    text = tokenizer.decode(kept[:end], skip_special_tokens=True).strip()
    return Completion(text, end is not None, tuple(kept))


def special_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> tuple[int, set[int]]:
    """The pad token, and the tokens that end a completion by the tokenizer's or the model's own word."""
    stated = model.generation_config.eos_token_id if model.generation_config else None
    ends = {*(stated if isinstance(stated, list) else [stated]), tokenizer.eos_token_id} - {None}
    pad = tokenizer.pad_token_id
    return (next(iter(ends)) if pad is None else pad), ends


def never_sampled(tokenizer: "PreTrainedTokenizerBase", ends: set[int]) -> list[int]:
    """Tokens that no answer holds: padding and the beginning of a text, unless one of them also ends it."""
    return sorted({tokenizer.pad_token_id, tokenizer.bos_token_id} - {None} - ends)


@contextmanager
def neutral(model: "PreTrainedModel") -> Iterator[None]:
    """Put the model's own generation settings aside (penalties, filters, lengths), all but its end tokens."""
    own, training = model.generation_config, model.training
    plain = GenerationConfig()
    plain.eos_token_id = copy.copy(own.eos_token_id) if own else None
    model.generation_config = plain
    model.eval()
    try:
        yield
    finally:
        model.generation_config = own
        model.train(training)
