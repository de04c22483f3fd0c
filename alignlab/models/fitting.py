"""Batches that fit into memory: how many rows are sampled at once, and smaller batches where memory runs out."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from alignlab.runtime import distributed
from alignlab.runtime.progress import say
from alignlab.runtime.worker_errors import is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alignlab.models.sampling import Sampling

T = TypeVar("T")
CPU_BYTES = 2 * 10**9  # of keys, values and logits of the rows that are sampled at once on a CPU
GPU_SHARE = 0.5  # of a GPU's free memory that they may use
COPIES_OF_LOGITS = 48  # bytes for each logit while a token is picked: float32 and several arrays of float64

_fitting: dict[str, int] = {}  # the most rows that fitted, by the kind of work; only where memory has run out


def forget() -> None:
    """Forget what has run out of memory: another model may fit."""
    _fitting.clear()


def in_batches(
    rows: Sequence[int], size: int, work: Callable[[list[int]], T], what: str, may_halve: bool = True
) -> Iterator[tuple[list[int], T]]:
    """Yield batches of at most `size` rows with the result of `work`.

    When memory runs out, batches are halved until they fit, unless `may_halve` is false. That is said, and remembered
    for this kind of work, `what`, until the next stage begins.
    """
    size, start = min(size, _fitting.get(what, size)), 0
    while start < len(rows):
        batch = list(rows[start : start + size])
        try:
            result = work(batch)
        except (RuntimeError, MemoryError) as error:
            if not may_halve or len(batch) == 1 or not is_out_of_memory(error):
                raise
            result = None
        if result is None:  # outside of `except`, whose error keeps tensors alive
            size = _fitting[what] = len(batch) // 2
            distributed.free_gpu_cache()
            say(f"memory ran out in {what} with {len(batch)} rows at once; going on with {size}")
            continue
        yield batch, result
        start += len(batch)


def fit_rollouts(
    model: "PreTrainedModel", prompts: Sequence[Sequence[int]], sampling: "Sampling", setting: int | None
) -> "Sampling":
    """Return the sampling with the batch size that `rollout_batch_size` chooses for the prompts."""
    longest = max(map(len, prompts)) + sampling.max_new_tokens
    return sampling._replace(batch_size=rollout_batch_size(model, longest, len(prompts), setting))


def rollout_batch_size(model: "PreTrainedModel", tokens: int, rows: int, setting: int | None) -> int:
    """Return how many of `rows` prompts are sampled at once, each with up to `tokens` tokens.

    It is the setting; where that is None, the rows whose keys, values and logits fit into the memory that is free.
    """
    if setting is not None:
        return min(setting, rows)
    needed = tokens * cache_bytes(model) + COPIES_OF_LOGITS * model.config.get_text_config().vocab_size
    return max(1, min(rows, free_bytes(model.device) // needed))


def cache_bytes(model: "PreTrainedModel") -> int:
    """Return the bytes of the keys and values of one token."""
    settings: Any = model.config.get_text_config(decoder=True)
    heads = getattr(settings, "num_key_value_heads", None) or settings.num_attention_heads
    width = getattr(settings, "head_dim", None) or settings.hidden_size // settings.num_attention_heads
    return int(2 * settings.num_hidden_layers * heads * width * model.dtype.itemsize)


def free_bytes(device: Any) -> int:
    """Return the memory in bytes that sampling may use on a device."""
    import torch

    if device.type != "cuda":
        return CPU_BYTES
    free, _ = torch.cuda.mem_get_info(device)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(GPU_SHARE * (free + cached))
