"""Continuous batching on one process: rows join and leave the batch at every token.

Each row has a slot in the key-value cache and its own length, so a row that joins or leaves moves no other row, except
that the last row fills the slot of one that left. A row has its own temperature, `top_p`, limit and random stream: its
tokens are those that `alignlab.models.sampling` samples for the same seed, whatever other rows are in the batch.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from alignlab.models.decoding import cache_argument, forward
from alignlab.models.sampling import draw_uniforms, masked_tokens, special_tokens
from alignlab.models.token_choice import LIKELIEST, invert, nucleus, shares_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

WIDTH = 64  # tokens; the cache grows by multiples of it


class Row:
    """A prompt of token ids, how it is continued, and the tokens so far; the seed decides all randomness."""

    def __init__(self, ids: Sequence[int], limit: int, temperature: float, top_p: float, seed: int) -> None:
        self.ids, self.limit, self.top_p = list(ids), limit, top_p
        self.temperature = max(temperature, LIKELIEST)
        self.uniforms: list[float] = draw_uniforms(seed, [0], limit)[0].tolist()
        self.tokens: list[int] = []


class Picked(NamedTuple):
    """The next token of a row, and whether it is the last one."""

    row: Row
    token: int
    last: bool


class Batch:
    """The rows that are decoded together; `step` adds one token to each."""

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        self.model = model
        self.pad, self.ends = special_tokens(model, tokenizer)
        self.masked = masked_tokens(tokenizer, self.ends)
        self.clear()

    def clear(self) -> None:
        """Remove all rows, and free the cache."""
        self.rows: list[Row] = []
        self.lengths = torch.zeros(0, dtype=torch.long, device=self.model.device)  # cached tokens, [rows]
        self.cache = DynamicCache(config=self.model.config)
        self.cache.layers = [SlotLayer(self) for _ in self.cache.layers]
        self.width = 0  # cached tokens of the longest row, with the one that is being computed

    def step(self, joining: Sequence[Row] = ()) -> list[Picked]:
        """Add one token to each row; rows that join get their first one, and rows that are finished leave."""
        with torch.inference_mode():
            logits = [self.decode()] if self.rows else []
            if joining:
                logits.append(self.prefill(joining))
            picked = self.pick(torch.cat(logits)) if logits else []
        self.remove([each.row for each in picked if each.last])
        return picked

    def decode(self) -> Tensor:
        """Return the logits after the last token of each row, [rows, vocabulary]."""
        device, self.width = self.lengths.device, int(self.lengths.max()) + 1
        ids = torch.tensor([row.tokens[-1:] for row in self.rows], device=device)
        mask = (torch.arange(self.width, device=device) <= self.lengths[:, None]).long()
        logits = forward(self.model, ids, mask, self.lengths[:, None], self.cache)
        self.lengths = self.lengths + 1
        return logits

    def prefill(self, joining: Sequence[Row]) -> Tensor:
        """Return the logits after each prompt, [joining, vocabulary], and add its keys and values to the cache.

        Prompts are padded on the right: a causal model does not see what comes later.
        """
        device = self.lengths.device
        lengths = torch.tensor([len(row.ids) for row in joining], device=device)
        longest = int(lengths.max())
        ids = torch.tensor([row.ids + [self.pad] * (longest - len(row.ids)) for row in joining], device=device)
        ends = sorted({len(row.ids) - 1 for row in joining})
        places = [ends.index(len(row.ids) - 1) for row in joining]
        computed = DynamicCache(config=self.model.config)
        last = torch.tensor(ends, device=device)
        named = {cache_argument(type(self.model).forward): computed}
        out = self.model(input_ids=ids, use_cache=True, logits_to_keep=last, **named)
        for layer, added in zip(self.cache.layers, computed.layers, strict=True):
            layer.add(added.keys, added.values)
        self.lengths = torch.cat([self.lengths, lengths])
        self.rows += joining
        logits: Tensor = out.logits[list(range(len(joining))), places]
        return logits

    def pick(self, scores: Tensor) -> list[Picked]:
        """Pick the next token of each row by the scores [rows, vocabulary] and the row's random number."""
        temperatures = scores.new_tensor([[row.temperature] for row in self.rows], dtype=torch.float32)
        shares = shares_of(scores, self.masked, temperatures)
        for top_p in {row.top_p for row in self.rows if row.top_p < 1}:
            chosen = [place for place, row in enumerate(self.rows) if row.top_p == top_p]
            shares[chosen] = nucleus(shares[chosen], top_p)
        uniforms = shares.new_tensor([row.uniforms[len(row.tokens)] for row in self.rows], dtype=torch.float64)
        picked = []
        for row, token in zip(self.rows, invert(shares, uniforms).tolist(), strict=True):
            row.tokens.append(token)
            picked.append(Picked(row, token, token in self.ends or len(row.tokens) == row.limit))
        return picked

    @torch.inference_mode()
    def remove(self, leaving: Sequence[Row]) -> None:
        """Remove rows at once; the last row takes the slot of each."""
        for row in leaving:
            slot, end = self.rows.index(row), len(self.rows) - 1
            if slot != end:
                length = int(self.lengths[end])
                for layer in self.cache.layers:
                    layer.move(end, slot, length)
                self.rows[slot], self.lengths[slot] = self.rows[end], self.lengths[end]
            self.rows.pop()
            self.lengths = self.lengths[:end]


class SlotLayer(DynamicLayer):  # type: ignore[misc]
    """A layer of the cache of a batch: keys and values in slots, each with its own length."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self.batch = batch
        self.buffers: list[Tensor] = []  # keys and values, [slots, heads, tokens, width of a head]

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write each row's new key and value after its earlier ones; return all up to the longest row."""
        rows, width = len(self.batch.lengths), self.batch.width
        self.grow(rows, width)
        slots = torch.arange(rows, device=key_states.device)
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[slots, :, self.batch.lengths] = new[:, :, 0]
        keys, values = (buffer[:rows, :, :width] for buffer in self.buffers)
        return keys, values

    def get_seq_length(self) -> int:
        """Return the number of cached tokens of the longest row."""
        return self.batch.width - 1

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Append rows with their keys and values, [rows, heads, tokens, width of a head]."""
        start, end, width = len(self.batch.rows), len(self.batch.rows) + len(keys), keys.shape[2]
        if not self.buffers:
            self.buffers = [new.new_zeros(0, new.shape[1], 0, new.shape[3]) for new in (keys, values)]
            self.is_initialized = True
        self.grow(end, width)
        for buffer, new in zip(self.buffers, (keys, values), strict=True):
            buffer[start:end, :, :width] = new

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of a slot to another one."""
        for buffer in self.buffers:
            buffer[target, :, :length] = buffer[source, :, :length]

    def grow(self, slots: int, width: int) -> None:
        """Make room for so many slots and tokens; the buffers at least double where they are too small."""
        have = self.buffers[0].shape
        if slots <= have[0] and width <= have[2]:
            return
        slots = max(slots, 2 * have[0]) if slots > have[0] else have[0]
        width = WIDTH * -(-max(width, 2 * have[2] if width > have[2] else have[2]) // WIDTH)
        for place, buffer in enumerate(self.buffers):
            larger = buffer.new_zeros(slots, have[1], width, buffer.shape[3])
            larger[: have[0], :, : have[2]] = buffer
            self.buffers[place] = larger
