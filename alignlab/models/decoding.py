"""One token after another from a decoder, without the costs of `generate`.

The keys and values of earlier tokens lie in memory that has room for all that will come, so that a new token moves
none of them, and rows that have come to their end leave the batch: whenever a quarter has, the others close ranks.
"""

from collections.abc import Callable
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Pick = Callable[[Tensor, int, Tensor], Tensor]  # (logits [batch, vocabulary], step, rows [batch]) → tokens [batch]
LEFT = 0.75  # of the batch still at work: below that, those that have ended are taken out


def decodes(model: "PreTrainedModel") -> bool:
    """Whether a model is a plain decoder: each layer keeps all keys and values."""
    if model.config.is_encoder_decoder or not model._supports_default_dynamic_cache():
        return False
    known = signature(model.forward).parameters
    layers = DynamicCache(config=model.config).layers
    return {"position_ids", "logits_to_keep", "past_key_values"} <= known.keys() and all(
        type(layer) is DynamicLayer for layer in layers
    )


def decode(
    model: "PreTrainedModel", ids: Tensor, mask: Tensor, pick: Pick, ends: Tensor, most: Tensor, copies: int = 1
) -> Tensor:
    """Draw new tokens, [batch, largest of `most`]; what stands behind a row's end means nothing.

    ids and mask [batch / copies, width], padded on the left: each prompt is computed once, and answered `copies` times
    in neighbouring rows. A row is at its end at one of the tokens `ends`, or when it has `most` [batch] tokens.
    """
    size, steps = ids.shape[1], int(most.max())
    cache = DynamicCache(config=model.config)
    cache.layers = [Roomy(size + steps) for _ in cache.layers]
    found = ids.new_zeros(len(most), steps)
    rows, over = torch.arange(len(most), device=ids.device), torch.zeros_like(most, dtype=torch.bool)
    seen = torch.cat([mask, mask.new_ones(len(ids), steps)], dim=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    for step in range(steps):
        logits = forward(model, ids, seen[:, : size + step], positions, cache)
        if step == 0 and copies > 1:
            logits, seen, positions = (one.repeat_interleave(copies, 0) for one in (logits, seen, positions))
            for layer in cache.layers:
                layer.copy(copies)
        drawn = pick(logits, step, rows)
        found[rows, step] = drawn
        over = over | torch.isin(drawn, ends) | (most[rows] <= step + 1)
        left = int((~over).sum())
        if not left:
            break
        ids, positions = drawn[:, None], positions[:, -1:] + 1
        if left < LEFT * len(rows):
            stay = (~over).nonzero()[:, 0]
            rows, over, seen, ids, positions = (one[stay] for one in (rows, over, seen, ids, positions))
            for layer in cache.layers:
                layer.keep(stay)
    return found


def forward(model: Any, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
    """The logits after the last of the ids, [batch, vocabulary]."""
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: Tensor = out.logits[:, -1]
    return logits


class Roomy(DynamicLayer):  # type: ignore[misc]
    """A layer of a cache with room for `size` tokens."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write the new states behind the others."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.room = [new.new_empty(*new.shape[:2], self.size, new.shape[3]) for new in (key_states, value_states)]
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for room, new in zip(self.room, (key_states, value_states), strict=True):
            room[:, :, start:end] = new
        self.keys, self.values = (room[:, :, :end] for room in self.room)
        return self.keys, self.values

    def copy(self, times: int) -> None:
        """Let each row stand several times, its copies beside it."""
        self.room = [room.repeat_interleave(times, 0) for room in self.room]
        self.keys, self.values = (room[:, :, : self.get_seq_length()] for room in self.room)

    def keep(self, rows: Tensor) -> None:
        """Let go of all rows but some."""
        self.room = [room[rows] for room in self.room]
        self.keys, self.values = (room[:, :, : self.get_seq_length()] for room in self.room)
