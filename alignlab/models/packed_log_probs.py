"""Log-probabilities of completions in the layout of `prompt_layout.pack`: only their tokens reach the output head."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from alignlab.models.log_probs import token_log_probs
from alignlab.models.output_head import Hidden, run_body, score_tokens
from alignlab.models.prompt_layout import Packed, counts, forward_arguments, unwrapped


class Predictions(NamedTuple):
    """The places of predicted tokens in [batch * length], of the tokens that predict them, and of their completions.

    All are [tokens]; a completion's place is in [batch * completions].
    """

    tokens: Tensor
    before: Tensor
    completions: Tensor


def predictions(segments: Tensor) -> Predictions:
    """Return what predicts the completions' tokens; the prompt's last token predicts the first of each."""
    rows, columns = (segments > 0).nonzero(as_tuple=True)
    numbers, earlier = segments[rows, columns], segments[rows, columns - 1]
    ends = (segments == 0).sum(1) - 1
    before = torch.where(numbers == earlier, columns - 1, ends[rows])
    start = rows * segments.shape[1]
    return Predictions(start + columns, start + before, rows * int(segments.max()) + numbers - 1)


def log_prob_sums(model: Any, packed: Packed) -> Tensor:  # [batch, completions]
    """Return the log-probability of each completion after its prompt."""
    rows, arguments = forward_arguments(model, packed, unwrapped(model).config)
    if rows is not packed or packed.segments.max() == 1:
        arguments = {}  # padding is on the right, which no earlier token sees
    hidden = run_body(model, input_ids=rows.input_ids, use_cache=False, **arguments)
    places = predictions(rows.segments)
    logps = log_probs_at(hidden, places.before, rows.input_ids.flatten()[places.tokens])
    sums = logps.new_zeros(len(packed.input_ids) * (counts(packed.segments).shape[1] - 1))
    return sums.index_add(0, places.completions, logps).view(len(packed.input_ids), -1)


def log_probs_at(hidden: Hidden, places: Tensor, tokens: Tensor) -> Tensor:  # [tokens], float32
    """Return the log-probabilities of tokens by the logits at places in [batch * length], in chunks."""
    return score_tokens(
        hidden.select(places), lambda logits, tokens: (token_log_probs(logits.float(), tokens),), tokens
    )[0]
