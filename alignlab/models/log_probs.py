"""Log-probabilities of completions: the one place where logits become log-probabilities of tokens.

Training computes padded batches with gradients (`pad_rows`, `forward`, `score_completions`). Judges and measurements
score rows of token ids without gradients (`completion_log_probs`). Both give a decoder prompt and completion as one
row, padded on the right: no earlier token sees the padding, so attention needs no mask.

Only the logits that predict a completion are computed, a chunk of tokens at a time (`alignlab.models.output_head`).
Temperature and masked tokens make them those of the distribution that the completion was sampled from.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from alignlab import losses
from alignlab.chat import Encoded, Turn, encode
from alignlab.models.fitting import in_batches
from alignlab.models.output_head import Hidden, map_chunks, run_body, score_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FORWARD_TOKENS = 8192  # in one forward pass without gradients


class PaddedRows(NamedTuple):
    """Rows of prompt and completion, each [batch, length]; the masks are 1 where a token is real.

    Prompts are padded on the left and completions on the right, so that all completions begin in one column.
    """

    prompt: Tensor
    prompt_mask: Tensor
    completion: Tensor
    mask: Tensor


class Distribution(NamedTuple):
    """How tokens were sampled: the temperature, and the tokens that are never sampled."""

    temperature: float
    masked: Sequence[int]


PLAIN = Distribution(1.0, ())


class TokenScores(NamedTuple):
    """Log-probabilities of completions and, if asked for, the entropy before each token; [batch, tokens] each."""

    logps: Tensor
    entropy: Tensor | None


class Divergence(NamedTuple):
    """Log-probabilities of completions by policy and reference, the policy's entropy, and KL(policy, reference).

    All are [batch, tokens]; entropy and KL are over the vocabulary.
    """

    logps: Tensor
    reference: Tensor
    entropy: Tensor
    exact_kl: Tensor


def pad_rows(
    prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], pad: int, device: Any
) -> PaddedRows:
    """Pad prompts on the left and completions on the right."""
    width, length = max(map(len, prompts)), max(map(len, completions))
    left = [[pad] * (width - len(ids)) + list(ids) for ids in prompts]
    right = [list(ids) + [pad] * (length - len(ids)) for ids in completions]
    left_mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
    right_mask = [[1] * len(ids) + [0] * (length - len(ids)) for ids in completions]
    return PaddedRows(*(torch.tensor(rows, device=device) for rows in (left, left_mask, right, right_mask)))


def forward(model: Any, rows: PaddedRows) -> Hidden:
    """Run a language model's body over padded rows; return what predicts completions, [batch, tokens]."""
    hidden = run_body(model, **inputs(model, rows))
    logits = None if hidden.logits is None else predictions(model, rows, hidden.logits)
    return hidden._replace(states=predictions(model, rows, hidden.states), logits=logits)


def hidden_states(model: Any, rows: PaddedRows) -> Tensor:
    """Run a model without a language head; return the states that predict completions, [batch, tokens, width]."""
    return predictions(model, rows, model(**inputs(model, rows)).last_hidden_state)


def inputs(model: Any, rows: PaddedRows) -> dict[str, Any]:
    """Return a model's keywords for padded rows; an encoder-decoder's encoder reads the prompts."""
    if model.config.is_encoder_decoder:
        begin = torch.full_like(rows.completion[:, :1], model.config.decoder_start_token_id)
        return {
            "input_ids": rows.prompt,
            "attention_mask": rows.prompt_mask,
            "decoder_input_ids": torch.cat([begin, rows.completion[:, :-1]], dim=1),
            "use_cache": False,
        }
    padding = rows.prompt.shape[1] - rows.prompt_mask.sum(1, keepdim=True)  # of each prompt, [batch, 1]
    together = torch.cat([rows.prompt, rows.completion[:, :-1]], dim=1)
    longest = int((rows.prompt_mask.sum(1) + rows.mask.sum(1)).max()) - 1
    places = padding + torch.arange(longest, device=padding.device)
    return {"input_ids": together.gather(1, places.clamp(max=together.shape[1] - 1)), "use_cache": False}


def predictions(model: Any, rows: PaddedRows, of_inputs: Tensor) -> Tensor:
    """Return what predicts each token of completions, [batch, tokens, …], of what a model gives for its `inputs`."""
    if model.config.is_encoder_decoder:
        return of_inputs
    first = rows.prompt_mask.sum(1, keepdim=True) - 1  # the last token of each prompt, [batch, 1]
    places = first + torch.arange(rows.completion.shape[1], device=first.device)
    return of_inputs[torch.arange(len(first), device=first.device)[:, None], places.clamp(max=of_inputs.shape[1] - 1)]


def score_completions(
    hidden: Hidden, tokens: Tensor, mask: Tensor, distribution: Distribution, with_entropy: bool = False
) -> TokenScores:
    """Return the scores of tokens [batch, tokens]; 0 where `mask` is 0."""

    def score(logits: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        every = sampling_logits(logits, *distribution).log_softmax(-1)
        logps = every.gather(-1, tokens[..., None]).squeeze(-1).where(mask.bool(), 0.0)
        return (logps, losses.entropy_of(every) * mask) if with_entropy else (logps,)

    scores = score_tokens(hidden, score, tokens.flatten(), mask.flatten())
    logps, *entropy = (each.view(tokens.shape) for each in scores)
    return TokenScores(logps, entropy[0] if entropy else None)


def compare_completions(
    policy: Hidden,
    reference: Hidden,
    tokens: Tensor,
    mask: Tensor,
    distribution: Distribution,
    as_reference: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Divergence:
    """Return what policy and reference say of tokens [batch, tokens], without gradients; 0 where `mask` is 0.

    `as_reference` opens a block in which the reference's output head is the active one.
    """
    chosen, real = tokens.flatten(), mask.flatten().bool()

    def score(part: slice) -> tuple[Tensor, ...]:
        ours = sampling_logits(policy.project(policy.flat[part]), *distribution).log_softmax(-1)
        with as_reference():
            theirs = sampling_logits(reference.project(reference.flat[part]), *distribution).log_softmax(-1)
        logps, of_reference = (each.gather(-1, chosen[part, None]).squeeze(-1) for each in (ours, theirs))
        entropy, kl = losses.entropy_of(ours), losses.kl_of(ours, theirs)
        return tuple(each.where(real[part], 0.0) for each in (logps, of_reference, entropy, kl))

    scores = map_chunks(score, len(chosen), policy.vocabulary)
    return Divergence(*(each.view(tokens.shape) for each in scores))


def sampling_logits(logits: Tensor, temperature: float, masked: Sequence[int]) -> Tensor:  # same shape, float32
    """Return the logits of the sampling distribution; `masked` are the tokens that are never sampled."""
    scaled = logits.float() / temperature
    scaled[..., list(masked)] = -torch.inf
    return scaled


def token_log_probs(logits: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:  # [...]
    """Return log-probabilities of tokens [...] by logits [..., vocabulary]; 0 where `mask` is 0.

    A masked token may be -inf, which times 0 is no number.
    """
    log_probs = logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    return log_probs if mask is None else log_probs.where(mask.bool(), 0.0)


def log_probs_and_greedy(logits: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
    """Return the log-probabilities of tokens [n] by logits [n, vocabulary], and whether each token is the likeliest."""
    every = logits.float().log_softmax(-1)
    return every.gather(-1, tokens[:, None])[:, 0], every.argmax(-1) == tokens


def log_probs_entropy_and_greedy(logits: Tensor, tokens: Tensor) -> tuple[Tensor, ...]:
    """Return `log_probs_and_greedy`, with the entropy [n], without gradients, before the last."""
    every = logits.float().log_softmax(-1)
    with torch.no_grad():
        entropy = losses.entropy_of(every)
    return every.gather(-1, tokens[:, None])[:, 0], entropy, every.argmax(-1) == tokens


def limit_tiles() -> None:
    """Let TRL's output head compute 8,192 entries of the vocabulary at a time.

    By default it computes 32,768 of them, for 4,096 tokens; on a CPU, that takes six times a tile's memory.
    """
    from trl.trainer import utils

    utils._CHUNKED_LOGPROB_CHUNK_SIZE = 8192


def fused_log_probs(model: Any, model_inputs: Any, mask: Tensor) -> tuple[Tensor, Any]:
    """Return summed log-probabilities of completions, [rows], and the output of a model with TRL's fused head.

    `mask` [rows, length] is 1 at the tokens of completions.
    """
    labels = model_inputs["input_ids"].masked_fill(mask == 0, -100)
    outputs = model(**model_inputs, use_cache=False, labels=labels, fused_lm_head=True)
    return outputs.log_probs[:, -(mask.shape[1] - 1) :].sum(1), outputs


def summed_log_probs(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[Turn]],
    completions: Sequence[str],
    batch_size: int,
) -> list[float]:
    """Return the log-probability of each completion after its prompt, its end of turn included."""
    rows = [encode(tokenizer, prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
    order = sorted(range(len(rows)), key=lambda row: row_length(rows[row]))
    batches = (order[start : start + batch_size] for start in range(0, len(order), batch_size))
    sums = [0.0] * len(rows)
    for batch in completion_log_probs(model, rows, batches):
        for row, log_probs in batch.items():
            sums[row] = float(log_probs.sum())
    return sums


def completion_log_probs(
    model: Any, rows: Sequence[Encoded], batches: Iterable[Sequence[int]]
) -> Iterator[dict[int, Tensor]]:
    """Yield, for each batch of row numbers, its rows' log-probabilities of completion tokens, [tokens] each."""

    def score(batch: list[int]) -> dict[int, Tensor]:
        with torch.inference_mode():
            hidden, tokens, mask = completion_states(model, [rows[row] for row in batch])
            logps = score_completions(hidden, tokens, mask, PLAIN).logps
        return {row: values[real] for row, values, real in zip(batch, logps, mask.bool(), strict=True)}

    for batch in batches:
        for _, log_probs in in_batches(batch, len(batch), score, "log-probabilities"):
            yield log_probs


def completion_states(model: Any, rows: Sequence[Encoded]) -> tuple[Hidden, Tensor, Tensor]:
    """Return what predicts the rows' completions; their tokens and a mask that is 1 at them, [rows, length] each."""
    pad = partial(torch.nn.utils.rnn.pad_sequence, batch_first=True)
    completions = [torch.tensor(row.completion) for row in rows]
    if model.config.is_encoder_decoder:
        prompts = [torch.tensor(row.prompt) for row in rows]
        begin = [model.config.decoder_start_token_id]
        model_inputs = {
            "input_ids": pad(prompts),
            "attention_mask": pad([torch.ones_like(prompt) for prompt in prompts]),
            "decoder_input_ids": pad([torch.tensor([*begin, *row.completion[:-1]]) for row in rows]),
        }
        first, starts = 0, [0] * len(rows)
    else:
        model_inputs = {"input_ids": pad([torch.tensor([*row.prompt, *row.completion]) for row in rows])}
        first = min(len(row.prompt) for row in rows) - 1  # no logits before it are needed
        starts = [len(row.prompt) - 1 - first for row in rows]
    hidden = run_body(model, **{k: tensor.to(model.device) for k, tensor in model_inputs.items()}, use_cache=False)
    logits = None if hidden.logits is None else hidden.logits[:, first:]
    hidden = hidden._replace(states=hidden.states[:, first:], logits=logits)
    tokens = torch.zeros(hidden.states.shape[:2], dtype=torch.long)
    mask = torch.zeros_like(tokens)
    for row, (start, ids) in enumerate(zip(starts, completions, strict=True)):
        tokens[row, start : start + len(ids)], mask[row, start : start + len(ids)] = ids, 1
    return hidden, tokens.to(model.device), mask.to(model.device)


def batches_by_length(rows: Sequence[Encoded], tokens: int = FORWARD_TOKENS) -> Iterator[list[int]]:
    """Yield row numbers in batches of similar length, longest first, of at most `tokens` tokens with padding."""
    order = sorted(range(len(rows)), key=lambda row: row_length(rows[row]))
    while order:
        count = max(1, tokens // max(1, row_length(rows[order[-1]])))
        yield order[-count:]
        order = order[:-count]


def row_length(row: Encoded) -> int:
    """Return the number of tokens of a row."""
    return len(row.prompt) + len(row.completion)
