"""What draws completions: `generate` is `alignlab.models.sampling` itself, `continuous` is transformers' continuous
batching.

The second is for a GPU: requests of any length share a paged cache, and a finished one makes room for the next at
once. The luck of sampling is the engine's, one stream for all prompts, drawn from the seed: the same seed gives the
same completions, but which prompts are answered together matters, unlike with `alignlab.models.sampling`.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from alignlab.errors import failure
from alignlab.models.sampling import Completion, Sampling, completion, draw_all, neutral, never_sampled, special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PAGE = 16  # tokens a page of the cache holds on a CPU, where the cache's size is not found by itself
ON_CPU = 512  # tokens a step


class Engine(Protocol):
    """Draws completions for prompts that are token ids: one each, in their order, all luck from the seed."""

    def __call__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        ids: Sequence[Sequence[int]],
        sampling: Sampling,
        seed: int,
        own: Sequence[int] | None = None,
    ) -> list[Completion]: ...


def engine(name: str) -> Engine:
    """The engine of a name."""
    return {"generate": draw_all, "continuous": continuous}[name]


def continuous(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seed: int,
    own: Sequence[int] | None = None,
) -> list[Completion]:
    """Draw one completion for each prompt by continuous batching, or for those at the places `own` among them."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    if model.config.is_encoder_decoder:
        raise failure("method.engine", "continuous batching is for decoders", "use engine=generate")
    pad, ends = special_tokens(model, tokenizer)
    settings = GenerationConfig(
        do_sample=True,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=0,
        max_new_tokens=sampling.max_new_tokens,
        pad_token_id=pad,
        eos_token_id=sorted(ends),
        suppress_tokens=never_sampled(tokenizer, ends) or None,
    )
    chosen = range(len(ids)) if own is None else own
    ids, seed = [list(ids[row]) for row in chosen], seed + min(chosen, default=0)
    batching = ContinuousBatchingConfig(seed=seed % 2**31, **room(model, ids, sampling))
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)  # it doubts processors that it keeps
    with neutral(model):
        found: dict[str, Any] = model.generate_batch(ids, settings, batching, warmup=model.device.type == "cuda")
    drawn = [one.generated_tokens for one in sorted(found.values(), key=lambda one: number(one.request_id))]
    if len(drawn) != len(ids):
        raise failure("method.engine", f"{len(drawn)} of {len(ids)} prompts were answered", "use engine=generate")
    return [completion(tokenizer, list(tokens), ends) for tokens in drawn]


def number(request: str) -> int:
    """The place of a request, from its id (`req_12`)."""
    return int(request.rpartition("_")[2])


def room(model: "PreTrainedModel", ids: Sequence[Sequence[int]], sampling: Sampling) -> dict[str, Any]:
    """The cache's size: a GPU's own business; on a CPU room for as many prompts as a batch has."""
    if model.device.type == "cuda":
        return {}
    longest = max(map(len, ids)) + sampling.max_new_tokens
    pages = -(-longest // PAGE) * min(len(ids), sampling.batch_size)
    return {
        "page_size": PAGE,
        "num_blocks": pages + 1,
        "max_batch_tokens": max(ON_CPU, longest),
        "use_async_batching": False,
        "use_cuda_graph": False,
    }
