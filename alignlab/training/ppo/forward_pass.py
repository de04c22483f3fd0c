"""What PPO's networks say of completions: log-probabilities, values, entropy, and the distance to the reference."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from alignlab import losses
from alignlab.models.sampling import Completion
from alignlab.training.ppo.actor_critic import Actor, Tokens, logps_of, reference_of
from alignlab.training.ppo.experience import Measured

Lay = Callable[[Sequence[list[int]], Sequence[list[int]]], Tokens]  # prompts and completions on the device


def measure_rows(
    actor: Actor,
    reference: Any,
    ids: Sequence[list[int]],
    completions: Sequence[Completion],
    own: Sequence[int],
    size: int,
    lay: Lay,
) -> list[tuple[Tensor, ...]]:
    """Measure the rows `own`, `size` of like length at once; a row is the fields of `Measured`, [longest] each."""
    tokens = [list(completion.tokens) for completion in completions]
    longest = max(map(len, tokens))
    order = sorted(own, key=lambda row: (len(ids[row]) + len(tokens[row]), row))
    found = Measured(*(torch.zeros(len(ids), longest) for _ in Measured._fields))
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        read = read_batch(actor, reference, lay([ids[row] for row in rows], [tokens[row] for row in rows]))
        for whole, part in zip(found, read, strict=True):
            whole[rows, : part.shape[1]] = part.float().cpu()
    return [tuple(tensor[row].clone() for tensor in found) for row in own]


def read_batch(actor: Actor, reference: Any, batch: Tokens) -> Measured:
    """What the networks say of one batch."""
    ours = actor.read(actor.policy, batch)
    values = actor.values(batch, ours)
    with reference_of(actor.policy, reference) as fixed:
        theirs = actor.read(fixed, batch)
    kl = losses.exact_kl(ours.logits.flatten(0, 1), theirs.logits.flatten(0, 1)).view(values.shape)
    mask = batch.mask
    return Measured(
        logps_of(ours.logits, batch), logps_of(theirs.logits, batch), values * mask,
        losses.entropy(ours.logits) * mask, kl * mask,
    )  # fmt: skip
