"""What the networks compute for a rollout's completions: log-probabilities, values, entropy, KL to the reference."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from alignlab import losses
from alignlab.models.log_probs import PaddedRows, token_log_probs
from alignlab.models.sampling import Completion
from alignlab.training.ppo.actor_critic import ActorCritic, reference_of
from alignlab.training.ppo.experience import Measured

Pad = Callable[
    [Sequence[list[int]], Sequence[list[int]]], PaddedRows
]  # prompts and completions to tensors on the device


def measure_rows(
    actor: ActorCritic,
    reference: Any,
    prompts: Sequence[list[int]],
    completions: Sequence[Completion],
    rows: Sequence[int],
    size: int,
    pad: Pad,
) -> list[tuple[Tensor, ...]]:
    """Measure some rows, `size` of similar length at once; a row is the fields of `Measured`, [longest] each."""
    tokens = [list(completion.tokens) for completion in completions]
    longest = max(map(len, tokens))
    order = sorted(rows, key=lambda row: (len(prompts[row]) + len(tokens[row]), row))
    measured = Measured(*(torch.zeros(len(prompts), longest) for _ in Measured._fields))
    for start in range(0, len(order), size):
        batch = order[start : start + size]
        of_batch = measure_batch(actor, reference, pad([prompts[row] for row in batch], [tokens[row] for row in batch]))
        for whole, part in zip(measured, of_batch, strict=True):
            whole[batch, : part.shape[1]] = part.float().cpu()
    return [tuple(tensor[row].clone() for tensor in measured) for row in rows]


def measure_batch(actor: ActorCritic, reference: Any, batch: PaddedRows) -> Measured:
    """Measure one batch with policy, value function and reference."""
    ours = actor.run(actor.policy, batch)
    values = actor.values(batch, ours)
    with reference_of(actor.policy, reference) as frozen:
        theirs = actor.run(frozen, batch)
    kl = losses.exact_kl(ours.logits.flatten(0, 1), theirs.logits.flatten(0, 1)).view(values.shape)
    mask = batch.mask
    logps, reference_logps = (token_log_probs(each.logits, batch.completion, mask) for each in (ours, theirs))
    return Measured(logps, reference_logps, values * mask, losses.entropy(ours.logits) * mask, kl * mask)
