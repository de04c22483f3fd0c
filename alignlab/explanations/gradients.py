"""Training rows that moved a policy towards a completion, by their gradients: TracInCP (Pruthi et al. 2020).

At each checkpoint of a stage's training that is left, the gradient of a row's loss is multiplied by that of the
completion. A positive sum means that a step on the row made the completion likelier. All gradients have length 1, and
all checkpoints the same learning rate. The gradients are those of the low-rank adapter, or of the last block and the
output head where there is none.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from alignlab.chat import Turn
from alignlab.explanations.nearest import Row, explanation
from alignlab.explanations.record import Explanation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWS = (
    "Training rows whose gradient points most in the direction of this completion's, as a cosine, averaged over the "
    "checkpoints: a step on a row with a similarity above 0 made the completion likelier."
)
CANNOT_SHOW = (
    "Only the models that a stage started from and ended with are compared, not those between; without an adapter, "
    "only the last block and the output head. Rows that teach the same words are alike whatever their prompts ask. "
    "What the reward model's rows and PPO's rewards did to the policy is not followed."
)


class Checkpoint(NamedTuple):
    """A model of a stage's training, and the weights whose gradients are compared."""

    model: Any
    tokenizer: "PreTrainedTokenizerBase"
    weights: Sequence[nn.Parameter]


def compared_weights(model: Any) -> list[nn.Parameter]:
    """Choose the weights whose gradients are compared: an adapter's, else the last block's and the output head's.

    All others need no gradient afterwards. A head that shares its weights with the embeddings gets a copy, since the
    gradient of the embeddings would need one of the whole model.
    """
    if hasattr(model, "peft_config"):
        return [weight for weight in model.parameters() if weight.requires_grad]
    body = model.get_decoder() if model.config.is_encoder_decoder else model
    blocks = next(module for module in body.modules() if isinstance(module, nn.ModuleList))
    head = model.get_output_embeddings()
    model.requires_grad_(False)
    head.weight = nn.Parameter(head.weight.detach().clone())
    chosen = [*blocks[-1].parameters(), head.weight]
    return [weight.requires_grad_() for weight in chosen]


def loss(checkpoint: Checkpoint, prompt: Sequence[Turn], text: str, rejected: str | None = None) -> Tensor:  # []
    """Return the negative log-likelihood of a completion, summed over its tokens.

    That of a rejected one is subtracted: the gradient of DPO's loss on a pair has this direction (Rafailov et al. 2023,
    section 4).
    """
    from alignlab.models.log_probs import PLAIN, completion_states, score_completions
    from alignlab.models.truncation import context_length, cut_row, encode_within

    model, tokenizer, _ = checkpoint
    texts = [text] if rejected is None else [text, rejected]
    longest = context_length(model.config)
    rows = [cut_row(row, longest) for row in encode_within(tokenizer, prompt, texts, longest)[1]]
    logps = score_completions(*completion_states(model, rows), PLAIN).logps.sum(1)
    return -logps[0] if rejected is None else logps[1] - logps[0]


def gradient(weights: Sequence[nn.Parameter], value: Tensor) -> Tensor:  # [weights]
    """Return the gradient of a loss, of length 1 and flat; 0 where it does not depend on a weight.

    Rows with the longest gradients would come first for every completion otherwise (Xia et al. 2024, LESS).
    """
    parts = torch.autograd.grad(value, list(weights), allow_unused=True, materialize_grads=True)
    flat = torch.cat([part.detach().float().flatten() for part in parts])
    return flat / flat.norm().clamp(min=1e-12)


def similarities(
    weights: Sequence[nn.Parameter], items: Iterable[Callable[[], Tensor]], rows: Iterable[Callable[[], Tensor]]
) -> Tensor:  # [items, rows]
    """Return the products of the gradients of items' and rows' losses; those of all items are kept in memory."""
    wanted = torch.stack([gradient(weights, item()) for item in items])
    return torch.stack([wanted @ gradient(weights, row()) for row in rows], dim=1)


def of_checkpoint(
    checkpoint: Checkpoint, items: Sequence[tuple[Sequence[Turn], str]], rows: Sequence[Row]
) -> Tensor:  # [items, rows]
    """Return the similarities of training rows to completions at one checkpoint."""
    return similarities(
        checkpoint.weights,
        (partial(loss, checkpoint, *item) for item in items),
        (partial(loss, checkpoint, row.prompt, row.text, row.rejected) for row in rows),
    )


def explanations(similar: Tensor, rows: Sequence[Row], count: int) -> list[Explanation]:
    """Return the record of the nearest rows of each item; `similar` is [items, rows]."""
    method = "nearest rows by gradient similarity (TracInCP)"
    return [explanation(method, SHOWS, each, rows, count, CANNOT_SHOW) for each in similar.tolist()]
