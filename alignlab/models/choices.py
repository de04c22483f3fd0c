"""Log-probabilities of given continuations of prompts: the scores of choices, and the likelihood of demonstrations.

The output head runs on the tokens of choices alone, in chunks, so that memory is bounded by them and not by prompts.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from alignlab.chat import Encoded, Turn
from alignlab.models.fitting import in_batches
from alignlab.models.log_probs import FORWARD_TOKENS, completion_states
from alignlab.models.output_head import Hidden, score_tokens
from alignlab.models.truncation import context_length, cut_row, encode_within
from alignlab.runtime.progress import progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
        for batch in batches([sum(map(row_tokens, choices)) for choices in rows]):
            for part, scores in in_batches(batch, len(batch), lambda part: score_batch(model, rows, part), "choices"):
                yield scores
                advance(len(part))


def row_tokens(row: Encoded) -> int:
    """Return the number of tokens of a row."""
    return len(row.prompt) + len(row.completion)


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
    flat = [row for place in batch for row in rows[place]]
    scores = iter(log_probs(model, flat))
    return {place: [next(scores) for _ in rows[place]] for place in batch}


@torch.inference_mode()
def log_probs(model: "PreTrainedModel", rows: Sequence[Encoded]) -> list[LogProb]:
    """Return the log-probabilities of the completions of one batch of rows."""
    hidden, tokens, mask = completion_states(model, rows)
    real = mask.bool()

    def score(logits: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
        every = logits.float().log_softmax(-1)
        return every.gather(-1, tokens[:, None])[:, 0], every.argmax(-1) == tokens

    logps, greedy = score_tokens(select(hidden, real), score, tokens[real])
    counts = real.sum(1).tolist()
    parts = zip(torch.split(logps, counts), torch.split(greedy, counts), counts, strict=True)
    return [LogProb(float(row.double().sum()), count, bool(likeliest.all())) for row, likeliest, count in parts]


def select(hidden: Hidden, mask: Tensor) -> Hidden:
    """Return what is needed for the tokens of a mask alone, [1, tokens]: the logits of a prompt are never computed."""
    logits = None if hidden.logits is None else hidden.logits[mask][None]
    return hidden._replace(states=hidden.states[mask][None], logits=logits)
