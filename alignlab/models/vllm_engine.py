"""Rollouts by vLLM: the policy's weights go to a server through a folder, and its completions come back as token ids.

The weights are written to a folder and the server is told to reload them (`/collective_rpc` with `reload_weights`).
This needs vLLM's plain server and a folder that both can read: no shared process group, no code inside the server, and
no second protocol for a low-rank adapter, which is merged into the weights that are written. A transfer over NCCL, as
TRL does it, is faster for large models, but trainer and server have to agree on a version of vLLM and on GPUs.

The server samples in its own precision with its own kernels. So it returns the log-probability of each token, and
`alignlab.training.ppo.engine_mismatch` compares them with the trainer's. This engine was tried against a server that
speaks vLLM's protocol, and not yet against vLLM on a GPU.
"""

import atexit
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignlab.config.vllm import Vllm
from alignlab.errors import failure
from alignlab.models.sampling import (
    Completion,
    Sampling,
    draw_limits,
    masked_tokens,
    special_tokens,
    to_completion,
)
from alignlab.models.vllm_client import VLLMClient
from alignlab.models.vllm_process import NAME, VLLMProcess
from alignlab.runtime import distributed
from alignlab.runtime.progress import progress

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NEVER = -100.0  # the lowest bias that vLLM accepts; its odds are e^-100
NEUTRAL = {  # sampling is exact: the server's defaults do not apply
    "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
    "ignore_eos": True, "skip_special_tokens": False, "return_token_ids": True, "logprobs": 0,
}  # fmt: skip


class VLLMEngine:
    """Samples completions on a vLLM server, which gets the policy's weights in `dtype`."""

    def __init__(self, settings: Vllm, dtype: "torch.dtype") -> None:
        self.settings, self.dtype = settings, dtype
        self.process: VLLMProcess | None = None  # the server, once `colocate` has started it

    @cached_property
    def client(self) -> VLLMClient:
        """Return the client of the server; `colocate` starts the server, from the folder of the first weights."""
        if self.settings.mode == "server":
            return VLLMClient(self.settings, self.settings.url)
        self.process = VLLMProcess(self.settings, self.folder, str(self.dtype).removeprefix("torch."))
        return VLLMClient(self.settings, self.process.url)

    @cached_property
    def model(self) -> str:
        """Return the name of the model, as the server knows it."""
        return NAME if self.settings.mode == "colocate" else self.client.model()

    @cached_property
    def folder(self) -> Path:
        """Return a new folder through which weights go to the server; it is removed when the process ends."""
        if self.settings.folder:
            self.settings.folder.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix="alignlab-policy-", dir=self.settings.folder)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return Path(folder).absolute()

    @contextmanager
    def serving(self, policy: Any, tokenizer: "PreTrainedTokenizerBase") -> Iterator[None]:
        """Serve the policy's present weights inside the block; a server of this process sleeps after it."""
        distributed.run_on_first(lambda: self.update(policy, tokenizer))
        yield
        if self.settings.mode == "colocate":
            self.client.sleep()

    def close(self) -> None:
        """End the server that `colocate` has started, and remove the weights."""
        if self.process:
            self.process.close()
        if "folder" in vars(self):
            shutil.rmtree(self.folder, ignore_errors=True)

    def update(self, policy: Any, tokenizer: "PreTrainedTokenizerBase") -> None:
        """Write the policy's weights, and make the server load them."""
        assert self.model  # the server answers, before anything is written
        write_weights(policy, tokenizer, self.folder, self.dtype)
        if self.settings.mode == "colocate":
            distributed.free_gpu_cache()
            self.client.wake_up("weights")
        settings = policy.config
        now = f"serve {settings.name_or_path}, or a model of its architecture with {settings.vocab_size} tokens"
        self.client.reload_weights(str(self.folder), now)
        if self.settings.mode == "colocate":
            self.client.wake_up("kv_cache")

    def __call__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        ids: Sequence[Sequence[int]],
        sampling: Sampling,
        seed: int,
        rows: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Sample one completion for each prompt, or for those in `rows`; see `alignlab.models.engines.Engine`."""
        _, ends = special_tokens(model, tokenizer)
        size = model.get_input_embeddings().num_embeddings
        limits = draw_limits(seed, len(ids), sampling).tolist()
        sampled = range(len(ids)) if rows is None else rows
        every = NEUTRAL | {
            "model": self.model,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "stop_token_ids": sorted(ends),
            "logit_bias": {str(token): NEVER for token in masked_tokens(tokenizer, ends)},
        }
        bodies = [every | {"prompt": list(ids[i]), "max_tokens": limits[i], "seed": row_seed(seed, i)} for i in sampled]
        completions: list[Completion] = []
        with (
            ThreadPoolExecutor(self.settings.concurrency) as threads,
            progress(len(bodies), "sampling", "completions") as advance,
        ):
            for answer in threads.map(self.client.complete, bodies):
                if max(answer.tokens) >= size:
                    raise self.client.failed(f"gives token {max(answer.tokens)} of {size}", "serve the policy's model")
                completion = to_completion(tokenizer, answer.tokens, ends)
                completions.append(completion._replace(logps=tuple(answer.logps[: len(completion.tokens)])))
                advance(1)
        return completions


def row_seed(seed: int, row: int) -> int:
    """Return a seed below 2^63 for a row; it depends on the seed and the row's number alone."""
    return int(np.random.Philox(key=[seed, row]).random_raw() >> 1)


def write_weights(policy: Any, tokenizer: "PreTrainedTokenizerBase", folder: Path, dtype: "torch.dtype") -> None:
    """Write a policy as a model folder in `dtype`; adapters are merged, and the policy itself is left as it is."""
    model = policy.get_base_model() if hasattr(policy, "get_base_model") else policy
    if model.config.is_encoder_decoder:
        raise failure("method.engine", "vllm is for decoders", "use engine=generate")
    if getattr(model, "hf_quantizer", None) is not None:
        raise failure("method.engine", "a quantised base model cannot be sent to vllm", "use engine=generate")
    folder.mkdir(parents=True, exist_ok=True)
    settings = model.config.dtype
    try:
        model.save_pretrained(folder, state_dict=merged_weights(model, dtype))
    finally:
        model.config.dtype = settings
    tokenizer.save_pretrained(folder)


def merged_weights(model: Any, dtype: "torch.dtype") -> "dict[str, torch.Tensor]":
    """Return a model's weights in `dtype` by their names in the base model, with its active adapters merged.

    Tied weights stay tied.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}
    casted: dict[int, torch.Tensor] = {}  # by the address of the weight
    weights: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if ".lora_" in name:
                continue
            owner = name.removesuffix(".base_layer.weight")
            if owner != name and owner in layers:
                for adapter in layers[owner].active_adapters:
                    weight = weight + layers[owner].get_delta_weight(adapter).to(weight.dtype)
                weights[f"{owner}.weight"] = weight.to(dtype)
            else:
                key = weight.data_ptr() or id(weight)
                plain = casted.setdefault(key, weight.to(dtype) if weight.is_floating_point() else weight)
                weights[name.replace(".base_layer.", ".")] = plain
    return weights
