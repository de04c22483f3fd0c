"""The layout in which models read several completions of a prompt: packed, where a model keeps them apart, else plain.

A packed row holds the prompt once and its completions one after the other. A completion attends to the prompt and to
itself, and its positions continue from the prompt's end. The prompt, usually the longer part, is so computed once a
pair instead of twice (arXiv 2410.20305), and the results are those of the plain layout: one row per completion.
`segments` describes a row: -1 is padding, 0 the prompt, k the k-th completion. Reward models and DPO read such rows.

Some models ignore a mask of their own or positions (recurrent ones, ALiBi). A model's `packing_limit` is the longest
row that it may read packed; it is measured on the model itself, since no list of architectures stays complete.
"""

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignlab.runtime import sharding
from alignlab.runtime.progress import say
from alignlab.runtime.worker_errors import is_out_of_memory

WINDOWS = re.compile(r".*(sliding_window|window|window_size|window_len|attention_chunk_size|index_topk)")


class Packed(NamedTuple):
    """Rows of token ids and the segment of each token, both [batch, length]."""

    input_ids: Tensor
    segments: Tensor


def pack(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[Sequence[int]]], pad: int) -> Packed:
    """Put each prompt and its completions into one row, padded on the right."""
    pairs = list(zip(prompts, completions, strict=True))
    rows = [[*prompt, *(token for ids in several for token in ids)] for prompt, several in pairs]
    segments = [
        [0] * len(prompt) + [k for k, ids in enumerate(several, start=1) for _ in ids] for prompt, several in pairs
    ]
    longest = max(map(len, rows))
    return Packed(
        torch.tensor([row + [pad] * (longest - len(row)) for row in rows]),
        torch.tensor([row + [-1] * (longest - len(row)) for row in segments]),
    )


def unpack(packed: Packed, pad: int) -> Packed:
    """Give each completion a row of its own with its prompt, [batch * completions, length]."""
    ids, segments = packed
    order = torch.arange(1, int(segments.max()) + 1, device=ids.device)[:, None]
    keep = (segments[:, None] == 0) | (segments[:, None] == order)  # [batch, completions, length]
    first = keep.logical_not().long().argsort(dim=-1, stable=True)[..., : int(keep.sum(-1).max())]
    kept = keep.gather(2, first).flatten(0, 1)
    rows = ids[:, None].expand_as(keep).gather(2, first).flatten(0, 1)
    numbers = (segments[:, None].expand_as(keep).gather(2, first) > 0).long().flatten(0, 1)
    return Packed(rows.masked_fill(~kept, pad), numbers.masked_fill(~kept, -1))


def counts(segments: Tensor) -> Tensor:
    """Return the number of tokens of the prompt and of each completion, [batch, 1 + completions]."""
    count = int(segments.max()) + 1
    return nn.functional.one_hot(segments + 1, count + 1).sum(1)[:, 1:]


def positions(segments: Tensor) -> Tensor:
    """Return the position of each token, [batch, length]; each completion continues from the prompt's end."""
    index = torch.arange(segments.shape[1], device=segments.device)
    sizes = counts(segments)
    earlier = (sizes.cumsum(1) - sizes - sizes[:, :1]).clamp(min=0)  # tokens of the completions before each
    return (index - earlier.gather(1, segments.clamp(min=0))).clamp(min=0)


def attention_mask(segments: Tensor) -> Tensor:
    """Return what tokens attend to, [batch, 1, length, length]: earlier tokens of the prompt and their completion."""
    length = segments.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    queries, keys = segments[:, :, None], segments[:, None, :]
    return (causal & ((keys == 0) | (keys == queries)))[:, None]


def last_tokens(segments: Tensor) -> Tensor:
    """Return the index of the last token of each completion, [batch, completions]."""
    return counts(segments).cumsum(1)[:, 1:] - 1


def unwrapped(model: nn.Module) -> Any:
    """Return the model of transformers inside the wrappers of PEFT, DDP and DeepSpeed."""
    return next(module for module in model.modules() if isinstance(module, PreTrainedModel))


def forward_arguments(model: nn.Module, packed: Packed, config: Any) -> tuple[Packed, dict[str, Tensor]]:
    """Return the rows that the model reads, packed or plain, and the arguments that say what attends to what."""
    config = config.get_text_config()
    if not reads_packed(model, packed.input_ids.shape[1]):
        rows = unpack(packed, getattr(config, "pad_token_id", None) or 0)
        return rows, {"attention_mask": (rows.segments >= 0).long()}
    mask = attention_mask(packed.segments)
    if config._attn_implementation != "sdpa":  # others add the mask to the attention scores
        lowest = torch.finfo(next(model.parameters()).dtype).min
        mask = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, lowest)
    return packed, {"attention_mask": mask, "position_ids": positions(packed.segments)}


def reads_packed(model: nn.Module, length: int) -> bool:
    """Return whether a model may read packed rows of a length."""
    return length <= getattr(unwrapped(model), "packing_limit", 0)


def choose_layout(model: Any, scores: Callable[[nn.Module, Packed], Tensor]) -> None:
    """Measure on the model whether it may read packed rows, and set its `packing_limit`.

    The packed scores must equal the plain ones, and the first completion's must not move when the second changes.
    Layers that see only the last tokens are right in rows no longer than their window.
    """
    training = model.training
    model.eval()
    with sharding.gather_weights(model), torch.random.fork_rng(), torch.no_grad():
        model.packing_limit = 0
        first, second = (probe(model, changed) for changed in (0, 1))
        plain = scores(model, first)
        model.packing_limit = sys.maxsize
        try:
            packed, other = scores(model, first), scores(model, second)
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            if is_out_of_memory(error):
                raise
            model.packing_limit = 0  # its class cannot read such rows, and the plain ones have passed already
        else:
            exact = model.get_input_embeddings().weight.dtype == torch.float32  # sums are float32 in any case
            same = torch.allclose(packed, plain, rtol=1e-5 if exact else 0.05, atol=1e-5 if exact else 0.05)
            apart = torch.allclose(packed[:, 0], other[:, 0], rtol=1e-5, atol=1e-5)
            model.packing_limit = min(windows(model.config), default=sys.maxsize) if same and apart else 0
    model.train(training)


def say_plain(stage: str, model: Any) -> None:
    """Say that a stage reads plain rows, where its model cannot read packed ones."""
    if not model.packing_limit:
        kind = getattr(model.config, "backbone", model.config).model_type
        say(f"{stage}: {kind} cannot keep two completions in one row apart, so each gets its own row")


def probe(model: Any, changed: int) -> Packed:
    """Build a row of a prompt and two completions; `changed` is added to the ids of the second."""
    size = model.get_input_embeddings().num_embeddings
    ids = [3 + 5 * i % (size - 5) for i in range(13)]
    row = pack([ids[:5]], [[ids[5:8], [i + changed for i in ids[8:]]]], 0)
    return Packed(*(tensor.to(model.device) for tensor in row))


def windows(settings: Any) -> list[int]:
    """Return the numbers of tokens that layers see at most, by a config and its sub-configs."""
    sizes: list[int] = []
    for name, value in vars(settings).items():
        if hasattr(value, "to_dict"):
            sizes += windows(value)
        elif WINDOWS.fullmatch(name) and isinstance(value, int) and not isinstance(value, bool) and value > 0:
            sizes.append(value)
    return sizes
