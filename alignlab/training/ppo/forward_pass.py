"""What the networks compute for a rollout's completions: log-probabilities, values, entropy, KL to the reference."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alignlab.models.fitting import in_batches
from alignlab.models.log_probs import PaddedRows, compare_completions, forward
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
    batches: Sequence[Sequence[int]],
    pad: Pad,
) -> dict[int, tuple[Tensor, ...]]:
    """Measure batches of rows; by its number, a row is the fields of `Measured`, [longest] each."""
    tokens = [list(completion.tokens) for completion in completions]
    longest = max(map(len, tokens))
    measured = Measured(*(torch.zeros(len(prompts), longest) for _ in Measured._fields))

    def measure(batch: list[int]) -> Measured:
        return measure_batch(actor, reference, pad([prompts[row] for row in batch], [tokens[row] for row in batch]))

    for rows in batches:
        for batch, of_batch in in_batches(rows, len(rows), measure, "measuring"):
            for whole, part in zip(measured, of_batch, strict=True):
                whole[batch, : part.shape[1]] = part.float().cpu()
    return {row: tuple(tensor[row].clone() for tensor in measured) for batch in batches for row in batch}


def measure_batch(actor: ActorCritic, reference: Any, batch: PaddedRows) -> Measured:
    """Measure one batch with policy, value function and reference."""
    ours = forward(actor.policy, batch)
    values = actor.values(batch, ours)
    as_reference = partial(reference_of, actor.policy, reference)
    with as_reference() as frozen:
        theirs = forward(frozen, batch)
    of_tokens = compare_completions(ours, theirs, batch.completion, batch.mask, actor.distribution, as_reference)
    return Measured(of_tokens.logps, of_tokens.reference, values * batch.mask, of_tokens.entropy, of_tokens.kl)
