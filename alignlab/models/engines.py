"""Engines that sample completions: `generate` is `alignlab.models.sampling`, `continuous` is transformers' own.

`vllm` is `alignlab.models.vllm_engine`; `auto` chooses among the other two.

Continuous batching is for a GPU: requests of any length share a paged cache, and a finished one makes room for the next
at once. It has one random stream for all prompts. The same seed gives the same completions, but which prompts are
sampled together matters, unlike with `alignlab.models.sampling`.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from alignlab.errors import failure
from alignlab.models.sampling import (
    Completion,
    Sampling,
    masked_tokens,
    neutral,
    sample_token_ids,
    special_tokens,
    to_completion,
)
from alignlab.models.vllm_engine import VLLMEngine
from alignlab.runtime import distributed

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignlab.config.vllm import Vllm

PAGE = 16  # tokens in a page of the cache on a CPU, where transformers does not choose the cache's size
CPU_TOKENS = 512  # in a step on a CPU


class Engine(Protocol):
    """Samples one completion for each prompt of token ids, in their order; the seed decides all randomness."""

    def __call__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        ids: Sequence[Sequence[int]],
        sampling: Sampling,
        seed: int,
        rows: Sequence[int] | None = None,
    ) -> list[Completion]: ...


def engine(name: str) -> Engine:
    """Return an engine that samples from the model itself, by its name."""
    return {"auto": automatic, "generate": sample_token_ids, "continuous": continuous}[name]


@contextmanager
def running(name: str, vllm: "Vllm", dtype: "torch.dtype") -> Iterator[Engine]:
    """Yield the engine of a name; what it has started or written is removed at the end.

    A vLLM server gets weights in `dtype`.
    """
    if name != "vllm":
        yield engine(name)
        return
    server = VLLMEngine(vllm, dtype)
    try:
        yield server
    finally:
        server.close()


def serving(engine: Engine, policy: Any, tokenizer: "PreTrainedTokenizerBase") -> AbstractContextManager[None]:
    """Return a context in which an engine samples from the policy's present weights."""
    return engine.serving(policy, tokenizer) if isinstance(engine, VLLMEngine) else nullcontext()


def automatic(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seed: int,
    rows: Sequence[int] | None = None,
) -> list[Completion]:
    """Sample by continuous batching where it can be used and pays: decoders on a GPU, with one limit for all."""
    batching = model.device.type == "cuda" and not model.config.is_encoder_decoder
    chosen = continuous if batching and sampling.max_new_tokens_from is None else sample_token_ids
    return chosen(model, tokenizer, ids, sampling, seed, rows)


def continuous(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seed: int,
    rows: Sequence[int] | None = None,
) -> list[Completion]:
    """Sample one completion for each prompt, or for those in `rows`, by continuous batching."""
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
        suppress_tokens=masked_tokens(tokenizer, ends) or None,
    )
    sampled = range(len(ids)) if rows is None else rows
    ids, seed = [list(ids[row]) for row in sampled], seed + min(sampled, default=0)
    batching = ContinuousBatchingConfig(seed=seed % 2**31, return_logprobs=True, **cache_size(model, ids, sampling))
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)  # it warns of processors that it does apply
    with neutral(model):
        outputs: dict[str, Any] = model.generate_batch(ids, settings, batching, warmup=model.device.type == "cuda")
    distributed.free_gpu_cache()  # of the paged cache, which is as large as the free memory
    finished = sorted(outputs.values(), key=lambda output: request_number(output.request_id))
    if len(finished) != len(ids):
        raise failure("method.engine", f"{len(finished)} of {len(ids)} prompts were answered", "use engine=generate")
    completions = [to_completion(tokenizer, list(output.generated_tokens), ends) for output in finished]
    return [
        completion._replace(logps=tuple(output.logprobs[: len(completion.tokens)]))
        for completion, output in zip(completions, finished, strict=True)
    ]


def request_number(request_id: str) -> int:
    """Return the number in a request's id (`req_12`)."""
    return int(request_id.rpartition("_")[2])


def cache_size(model: "PreTrainedModel", ids: Sequence[Sequence[int]], sampling: Sampling) -> dict[str, Any]:
    """Return the options of the cache: on a CPU it has room for a batch, on a GPU transformers chooses."""
    if model.device.type == "cuda":
        return {}
    longest = max(map(len, ids)) + sampling.max_new_tokens
    pages = -(-longest // PAGE) * min(len(ids), sampling.batch_size)
    return {
        "page_size": PAGE,
        "num_blocks": pages + 1,
        "max_batch_tokens": max(CPU_TOKENS, longest),
        "use_async_batching": False,
        "use_cuda_graph": False,
    }
