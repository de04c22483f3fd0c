"""What the networks compute for a rollout's completions: log-probabilities, values, entropy, KL to the reference."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from alignlab import losses
from alignlab.models.sampling import Completion
from alignlab.training.ppo.actor_critic import Actor, Tokens, logps_of, reference_of
from alignlab.training.ppo.experience import Measured

Pad = Callable[[Sequence[list[int]], Sequence[list[int]]], Tokens]  # prompts and completions → tensors on the device


def measure_rows(
    actor: Actor,
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


def measure_batch(actor: Actor, reference: Any, batch: Tokens) -> Measured:
    """Measure one batch with policy, value function and reference."""
    ours = actor.read(actor.policy, batch)
    values = actor.values(batch, ours)
    with reference_of(actor.policy, reference) as frozen:
        theirs = actor.read(frozen, batch)
    kl = losses.exact_kl(ours.logits.flatten(0, 1), theirs.logits.flatten(0, 1)).view(values.shape)
    mask = batch.mask
    return Measured(
        logps_of(ours.logits, batch), logps_of(theirs.logits, batch), values * mask,
        losses.entropy(ours.logits) * mask, kl * mask,
    )  # fmt: skip
