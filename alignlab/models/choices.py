"""Log-probabilities of given continuations of prompts: the scores of choices, and the likelihood of demonstrations.

The output head runs on the tokens of choices alone, in chunks, so that memory is bounded by them and not by prompts.
Choices of one prompt share it: they stand in one row behind the prompt, with the positions that each has alone and a
mask that hides each from the others. It is tried once whether a model computes such a row as each choice alone.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from alignlab.chat import Encoded, Turn
from alignlab.models.decoding import is_plain_decoder
from alignlab.models.fitting import in_batches
from alignlab.models.log_probs import FORWARD_TOKENS, completion_states, log_probs_and_greedy
from alignlab.models.output_head import Hidden, run_body, score_tokens
from alignlab.models.truncation import context_length, cut_row, encode_within
from alignlab.runtime.progress import progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


MASKED = ("sdpa", "eager")  # attention that takes a mask of any form
CLOSE = {torch.float32: 1e-4}  # nats a token, between a shared row and one choice alone; 0.05 in other precisions

_shares: "WeakKeyDictionary[Any, bool]" = WeakKeyDictionary()


class LogProb(NamedTuple):
    """The log-probability of a continuation, its number of tokens, and whether each is the likeliest."""

    score: float
    tokens: int
    greedy: bool


def encode_choices(
    tokenizer: "PreTrainedTokenizerBase",
    prompt: Sequence[Turn] | str,
    choices: Sequence[str],
    context: int | None,
    ends: Sequence[bool],
) -> list[Encoded]:
    """Return the token ids of a prompt and each of its choices, cut to the model's context.

    A prompt of raw text gets no chat template, and its choices no end-of-turn token. A chat's choice gets one where it
    `ends`.
    """
    if isinstance(prompt, str):
        rows = [encode_text(tokenizer, prompt, choice) for choice in choices]
    else:
        rows = encode_within(tokenizer, prompt, choices, context, finished=ends)[1]
    return [cut_row(row, context) for row in rows]


def encode_text(tokenizer: "PreTrainedTokenizerBase", text: str, choice: str) -> Encoded:
    """Return raw text and its continuation as token ids; a token that spans both belongs to the continuation.

    An empty text is the token that begins a text. White space before the continuation belongs to it, as in lm-eval.
    """
    blank = text[len(text.rstrip()) :]
    whole = text_ids(tokenizer, text + choice)
    before = text_ids(tokenizer, text.removesuffix(blank)) if text.rstrip() else []
    if not before:
        begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        return Encoded([begin], whole[whole[:1] == [begin] :])
    return Encoded(whole[: len(before)], whole[len(before) :])


def text_ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    """Return raw text as token ids, with the tokens that the tokenizer begins a text with."""
    ids: list[int] = tokenizer(text)["input_ids"]
    end = tokenizer.eos_token_id
    return ids[:-1] if ids and ids[-1] == end and not text.endswith(str(tokenizer.eos_token)) else ids


def score_choices(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    questions: Sequence[tuple[Sequence[Turn] | str, Sequence[str], Sequence[bool]]],
) -> Iterator[dict[int, list[LogProb]]]:
    """Yield batch by batch, by the question's place, the log-probabilities of its choices.

    A question is a prompt, its choices, and whether each of them ends the turn. The longest questions come first.
    """
    context = context_length(model.config)
    rows = [encode_choices(tokenizer, prompt, choices, context, ends) for prompt, choices, ends in questions]
    with progress(len(rows), "log-probabilities", "prompts") as advance:
        for batch in batches(list(map(row_tokens, rows))):
            for part, scores in in_batches(batch, len(batch), lambda part: score_batch(model, rows, part), "choices"):
                yield scores
                advance(len(part))


def shares_prompt(choices: Sequence[Encoded]) -> bool:
    """Return whether choices can stand in one row: they follow the same tokens."""
    return len(choices) > 1 and all(row.prompt == choices[0].prompt and row.completion for row in choices)


def row_tokens(choices: Sequence[Encoded]) -> int:
    """Return the number of tokens that a question's choices take, with a shared prompt counted once."""
    prompts = 1 if shares_prompt(choices) else len(choices)
    return prompts * len(choices[0].prompt) + sum(len(row.completion) for row in choices)


def batches(tokens: Sequence[int]) -> Iterator[list[int]]:
    """Yield places in batches of about `FORWARD_TOKENS` tokens, largest first; a batch depends on no earlier one."""
    order = sorted(range(len(tokens)), key=lambda place: (-tokens[place], place))
    while order:
        count = max(1, FORWARD_TOKENS // max(1, tokens[order[0]]))
        yield order[:count]
        order = order[count:]


def score_batch(
    model: "PreTrainedModel", rows: Sequence[Sequence[Encoded]], batch: list[int]
) -> dict[int, list[LogProb]]:
    """Return the log-probabilities of the choices of some questions."""
    shared = [place for place in batch if shares_prompt(rows[place])]
    if not shared or not can_share(model, rows[shared[0]]):
        shared = []
    scores = dict(zip(shared, shared_log_probs(model, [rows[place] for place in shared]), strict=True))
    alone = [place for place in batch if place not in scores]
    flat = iter(log_probs(model, [row for place in alone for row in rows[place]]))
    return scores | {place: [next(flat) for _ in rows[place]] for place in alone}


def can_share(model: "PreTrainedModel", choices: Sequence[Encoded]) -> bool:
    """Return whether a model scores choices in one row as it scores each alone; it is tried once, on these."""
    if model not in _shares:
        _shares[model] = (
            is_plain_decoder(model)
            and model.config._attn_implementation in MASKED
            and all(
                abs(one.score - other.score) <= CLOSE.get(model.dtype, 0.05) * other.tokens
                for one, other in zip(shared_log_probs(model, [choices])[0], log_probs(model, choices), strict=True)
            )
        )
    return _shares[model]


@torch.inference_mode()
def log_probs(model: "PreTrainedModel", rows: Sequence[Encoded]) -> list[LogProb]:
    """Return the log-probabilities of the completions of one batch of rows."""
    if not rows:
        return []
    hidden, tokens, mask = completion_states(model, rows)
    real = mask.bool()
    return score_selected(select(hidden, real), tokens[real], real.sum(1).tolist())


@torch.inference_mode()
def shared_log_probs(model: "PreTrainedModel", questions: Sequence[Sequence[Encoded]]) -> list[list[LogProb]]:
    """Return the log-probabilities of the choices of questions, each of which is one row with its prompt once."""
    if not questions:
        return []
    packed = [pack(choices) for choices in questions]
    width = max(len(row.ids) for row in packed)
    ids, positions, segments = (
        torch.tensor([[*getattr(row, name), *[fill] * (width - len(row.ids))] for row in packed])
        for name, fill in (("ids", 0), ("positions", 0), ("segments", -1))
    )
    visible = (segments[:, None] == segments[:, :, None]) | (segments[:, None] == 0)  # [rows, query, key]
    visible &= torch.ones(width, width, dtype=torch.bool).tril()
    mask = torch.zeros(visible.shape, dtype=model.dtype).masked_fill(~visible, torch.finfo(model.dtype).min)[:, None]
    inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": mask}
    hidden = run_body(model, **{name: tensor.to(model.device) for name, tensor in inputs.items()}, use_cache=False)
    places = torch.tensor([[row, place] for row, one in enumerate(packed) for place in one.before], device=model.device)
    logits = None if hidden.logits is None else hidden.logits[places[:, 0], places[:, 1]][None]
    hidden = hidden._replace(states=hidden.states[places[:, 0], places[:, 1]][None], logits=logits)
    choices = [row.completion for question in questions for row in question]
    tokens = torch.tensor([token for choice in choices for token in choice], device=model.device)
    scores = iter(score_selected(hidden, tokens, [len(choice) for choice in choices]))
    return [[next(scores) for _ in question] for question in questions]


class Packed(NamedTuple):
    """A prompt and its choices in one row, without the last token of each choice, which predicts nothing.

    `segments` are 0 in the prompt and the number of the choice in it, from 1. `before` holds for each token of each
    choice the place that predicts it.
    """

    ids: list[int]
    positions: list[int]
    segments: list[int]
    before: list[int]


def pack(choices: Sequence[Encoded]) -> Packed:
    """Put the choices of one prompt into one row."""
    ids = list(choices[0].prompt)
    length = len(ids)
    row = Packed(ids, list(range(length)), [0] * length, [])
    for number, choice in enumerate(choices, 1):
        count = len(choice.completion) - 1
        row.before.extend([length - 1, *range(len(row.ids), len(row.ids) + count)])
        row.ids.extend(choice.completion[:-1])
        row.positions.extend(range(length, length + count))
        row.segments.extend([number] * count)
    return row


def score_selected(hidden: Hidden, tokens: Tensor, counts: Sequence[int]) -> list[LogProb]:
    """Return the log-probabilities of tokens [n] by what predicts them, summed over neighbouring `counts` of them."""
    logps, greedy = score_tokens(hidden, log_probs_and_greedy, tokens)
    parts = zip(torch.split(logps, list(counts)), torch.split(greedy, list(counts)), counts, strict=True)
    return [LogProb(float(row.double().sum()), count, bool(likeliest.all())) for row, likeliest, count in parts]


def select(hidden: Hidden, mask: Tensor) -> Hidden:
    """Return what is needed for the tokens of a mask alone, [1, tokens]: the logits of a prompt are never computed."""
    logits = None if hidden.logits is None else hidden.logits[mask][None]
    return hidden._replace(states=hidden.states[mask][None], logits=logits)
