"""What the networks compute for a rollout's completions: log-probabilities, values, entropy, KL to the reference."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alignlab.models.fitting import in_batches
from alignlab.models.log_probs import PaddedRows, compare_completions, forward
from alignlab.models.sampling import Completion
from alignlab.runtime import sharding
from alignlab.training.ppo.actor_critic import ActorCritic, reference_of
from alignlab.training.ppo.experience import Measured

Pad = Callable[
    [Sequence[list[int]], Sequence[list[int]]], PaddedRows
]  # prompts and completions to tensors on the device


def measure_rows(
    actor: ActorCritic,
    reference: Any,
    on_device: AbstractContextManager[None],
    prompts: Sequence[list[int]],
    completions: Sequence[Completion],
    batches: Sequence[Sequence[int]],
    pad: Pad,
) -> dict[int, tuple[Tensor, ...]]:
    """Measure batches of rows; by its number, a row is the fields of `Measured`, [longest] each.

    A value function with a model of its own goes first, so that its weights and the others' are not gathered together.
    `on_device` opens a block in which the reference can be used.
    """
    tokens = [list(completion.tokens) for completion in completions]
    measured = Measured(*(torch.zeros(len(prompts), max(map(len, tokens))) for _ in Measured._fields))

    # In bfloat16 other batches give other ratios, so the stage is retried with smaller micro-batches instead.
    may_halve = actor.policy.dtype == torch.float32

    def fill(measure: Callable[[PaddedRows], dict[str, Tensor]]) -> None:
        def work(batch: list[int]) -> dict[str, Tensor]:
            return measure(pad([prompts[row] for row in batch], [tokens[row] for row in batch]))

        for rows in batches:
            for batch, fields in in_batches(rows, len(rows), work, "measuring", may_halve):
                for name, values in fields.items():
                    getattr(measured, name)[batch, : values.shape[1]] = values.float().cpu()

    if actor.value is not None:
        with sharding.gather_weights(actor.value, actor.head):
            fill(lambda batch: {"values": actor.values(batch) * batch.mask})
    with sharding.gather_weights(actor.policy, actor.head), on_device:
        fill(partial(measure_batch, actor, reference))
    return {row: tuple(tensor[row].clone() for tensor in measured) for batch in batches for row in batch}


def measure_batch(actor: ActorCritic, reference: Any, batch: PaddedRows) -> dict[str, Tensor]:
    """Return the fields of `Measured` by policy, reference and a value function on the policy's weights."""
    ours = forward(actor.policy, batch)
    values = {} if actor.value is not None else {"values": actor.values(batch, ours) * batch.mask}
    as_reference = partial(reference_of, actor.policy, reference)
    with as_reference() as frozen:
        theirs = forward(frozen, batch)
    of_tokens = compare_completions(ours, theirs, batch.completion, batch.mask, actor.distribution, as_reference)
    return values | of_tokens._asdict()
