"""Log-probabilities of completions: the one place where logits become log-probabilities of tokens.

Training computes padded batches with gradients (`pad_rows`, `forward`, `token_log_probs`): prompts are padded on the
left, so that all completions begin in one column, and positions count real tokens. Judges and measurements score rows
of token ids without gradients (`completion_log_probs`): rows are padded on the right, which no earlier token sees.

Only the logits that predict a completion are computed. Temperature and masked tokens make them those of the
distribution that the completion was sampled from.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from alignlab.chat import Encoded, Turn, encode

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class PaddedRows(NamedTuple):
    """Rows of prompt and completion, each [batch, length]; the masks are 1 where a token is real."""

    prompt: Tensor
    prompt_mask: Tensor
    completion: Tensor
    mask: Tensor


class Forward(NamedTuple):
    """Logits [batch, tokens, vocabulary] and last hidden states [batch, tokens, width] that predict completions."""

    logits: Tensor
    states: Tensor


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


def forward(model: Any, rows: PaddedRows) -> Forward:
    """Run a language model over padded rows."""
    out = model(**inputs(model, rows), output_hidden_states=True)
    if model.config.is_encoder_decoder:
        return Forward(out.logits, out.decoder_hidden_states[-1])
    size = rows.completion.shape[1]
    return Forward(out.logits[:, -size:], out.hidden_states[-1][:, -size:])


def hidden_states(model: Any, rows: PaddedRows) -> Tensor:
    """Run a model without a language head; return the states that predict completions, [batch, tokens, width]."""
    size = rows.completion.shape[1]
    out = model(**{name: value for name, value in inputs(model, rows).items() if name != "logits_to_keep"})
    states: Tensor = out.last_hidden_state[:, -size:]
    return states


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
    mask = torch.cat([rows.prompt_mask, rows.mask[:, :-1]], dim=1)
    return {
        "input_ids": torch.cat([rows.prompt, rows.completion[:, :-1]], dim=1),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        "use_cache": False,
        "logits_to_keep": rows.completion.shape[1],
    }


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
    for batch in batches:
        part = [rows[row] for row in batch]
        with torch.inference_mode():
            logits = completion_logits(model, part).float()
            tokens = torch.tensor([token for row in part for token in row.completion], device=logits.device)
            log_probs = torch.split(token_log_probs(logits, tokens), [len(row.completion) for row in part])
        yield dict(zip(batch, log_probs, strict=True))


def completion_logits(model: Any, rows: Sequence[Encoded]) -> Tensor:  # [tokens, vocabulary]
    """Return the logits that predict the rows' completions, one row after the other."""
    pad = torch.nn.utils.rnn.pad_sequence
    if model.config.is_encoder_decoder:
        prompts = [torch.tensor(row.prompt) for row in rows]
        begin = [model.config.decoder_start_token_id]
        model_inputs = {
            "input_ids": pad(prompts, batch_first=True),
            "attention_mask": pad([torch.ones_like(prompt) for prompt in prompts], batch_first=True),
            "decoder_input_ids": pad([torch.tensor([*begin, *row.completion[:-1]]) for row in rows], batch_first=True),
        }
        moved = {name: tensor.to(model.device) for name, tensor in model_inputs.items()}
        logits, starts = model(**moved, use_cache=False).logits, [0] * len(rows)
    else:
        ids = pad([torch.tensor([*row.prompt, *row.completion]) for row in rows], batch_first=True).to(model.device)
        first = min(len(row.prompt) for row in rows) - 1  # no logits before it are needed
        kept = ids.shape[1] - first
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=kept).logits[:, -kept:]
        starts = [len(row.prompt) - 1 - first for row in rows]
    sizes = [len(row.completion) for row in rows]
    return torch.cat([part[start : start + size] for part, start, size in zip(logits, starts, sizes, strict=True)])


def batches_by_length(rows: Sequence[Encoded], tokens: int) -> Iterator[list[int]]:
    """Yield row numbers in batches of similar length, longest first, of at most `tokens` tokens with padding."""
    order = sorted(range(len(rows)), key=lambda row: row_length(rows[row]))
    while order:
        count = max(1, tokens // max(1, row_length(rows[order[-1]])))
        yield order[-count:]
        order = order[:-count]


def row_length(row: Encoded) -> int:
    """Return the number of tokens of a row."""
    return len(row.prompt) + len(row.completion)
