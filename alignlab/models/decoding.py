"""Decoding with a preallocated cache, which costs less than transformers' `generate`.

The cache has room for all tokens that will come, so a new token moves none of the earlier ones. Rows that are finished
leave the batch: when a quarter of it is finished, the others are moved together.
"""

from collections.abc import Callable
from functools import lru_cache
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Pick = Callable[[Tensor, int, Tensor], Tensor]  # (logits [batch, vocabulary], step, rows [batch]) → tokens [batch]
COMPACT_BELOW = 0.75  # the share of unfinished rows below which finished ones are removed from the batch


def is_plain_decoder(model: "PreTrainedModel") -> bool:
    """Return whether `decode` supports a model: a decoder whose layers all keep every key and value."""
    if model.config.is_encoder_decoder or not model._supports_default_dynamic_cache():
        return False
    known = signature(model.forward).parameters
    layers = DynamicCache(config=model.config).layers
    return {"position_ids", "logits_to_keep", cache_argument(type(model).forward)} <= known.keys() and all(
        type(layer) is DynamicLayer for layer in layers
    )


@lru_cache(maxsize=64)
def cache_argument(forward: Callable[..., Any]) -> str:
    """Return the argument that takes a model's cache, by its class's `forward`: transformers 5.24 renamed it."""
    return "cache" if "cache" in signature(forward).parameters else "past_key_values"


def decode(
    model: "PreTrainedModel", ids: Tensor, mask: Tensor, pick: Pick, ends: Tensor, limits: Tensor, copies: int = 1
) -> Tensor:
    """Return new tokens, [batch, largest limit]; those after a row's end are arbitrary.

    ids and mask [batch / copies, width] are padded on the left. Each prompt is computed once and continued in `copies`
    neighbouring rows. A row ends at one of the tokens `ends`, or when it has `limits` [batch] tokens.
    """
    width, steps = ids.shape[1], int(limits.max())
    cache = preallocated_cache(model, width + steps)
    tokens = ids.new_zeros(len(limits), steps)
    rows, finished = torch.arange(len(limits), device=ids.device), torch.zeros_like(limits, dtype=torch.bool)
    mask = torch.cat([mask, mask.new_ones(len(ids), steps)], dim=1)
    positions = (mask[:, :width].cumsum(1) - 1).clamp(min=0)
    for step in range(steps):
        logits = forward(model, ids, mask[:, : width + step], positions, cache)
        if step == 0 and copies > 1:
            logits, mask, positions = (each.repeat_interleave(copies, 0) for each in (logits, mask, positions))
            for layer in cache.layers:
                layer.repeat(copies)
        picked = pick(logits, step, rows)
        tokens[rows, step] = picked
        finished = finished | torch.isin(picked, ends) | (limits[rows] <= step + 1)
        unfinished = int((~finished).sum())
        if not unfinished:
            break
        ids, positions = picked[:, None], positions[:, -1:] + 1
        if unfinished < COMPACT_BELOW * len(rows):
            kept = (~finished).nonzero()[:, 0]
            rows, finished, mask, ids, positions = (each[kept] for each in (rows, finished, mask, ids, positions))
            for layer in cache.layers:
                layer.keep(kept)
    return tokens


def preallocated_cache(model: Any, size: int) -> DynamicCache:
    """Return a cache with room for `size` tokens."""
    cache = DynamicCache(config=model.config)
    cache.layers = [PreallocatedLayer(size) for _ in cache.layers]
    return cache


def forward(model: Any, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
    """Return the logits after the last of the ids, [batch, vocabulary]."""
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        use_cache=True,
        logits_to_keep=1,
        **{cache_argument(type(model).forward): cache},
    )
    logits: Tensor = out.logits[:, -1]
    return logits


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """A layer of a cache with room for `size` tokens."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.buffers: list[Tensor] = []  # keys and values, [batch, heads, size, width]; empty before the first update

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write new keys and values after the earlier ones; return all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            states = key_states, value_states
            self.buffers = [new.new_empty(*new.shape[:2], self.size, new.shape[3]) for new in states]
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def repeat(self, copies: int) -> None:
        """Repeat each row, its copies beside it."""
        self.replace([buffer.repeat_interleave(copies, 0) for buffer in self.buffers])

    def keep(self, rows: Tensor) -> None:
        """Remove all rows but some."""
        self.replace([buffer[rows] for buffer in self.buffers])

    def replace(self, buffers: list[Tensor]) -> None:
        """Use other buffers, which hold as many tokens."""
        length = self.get_seq_length()
        self.buffers = buffers
        self.keys, self.values = (buffer[:, :, :length] for buffer in buffers)
