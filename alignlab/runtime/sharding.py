"""Weights that ZeRO-3 or FSDP2 partitions over the processes: partition a model on load, gather its weights, unshard.

Where the weights are not partitioned, all of this does nothing.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from alignlab.runtime.distributed import hardware_of_group, unset_deepspeed_config

if TYPE_CHECKING:
    import torch
    from torch import nn


@contextmanager
def partition_on_load(dtype: "torch.dtype") -> Iterator[None]:
    """Partition models of a dtype over the processes while they are loaded, where the hardware does so (ZeRO-3)."""
    hardware = hardware_of_group()
    block = hardware.deepspeed if hardware else None
    if block is None or not partitions_weights():
        yield
        return
    from transformers.integrations import HfDeepSpeedConfig

    loading_config = HfDeepSpeedConfig(without_auto(block.block(), dtype))  # transformers keeps a weak reference to it
    try:
        yield
    finally:
        del loading_config
        unset_deepspeed_config()


def without_auto(block: dict[str, Any], dtype: "torch.dtype") -> dict[str, Any]:
    """Return DeepSpeed's block without its `auto` values, which loading does not accept; it loads in a dtype."""
    zero = {name: value for name, value in block["zero_optimization"].items() if value != "auto"}
    rest = {name: value for name, value in block.items() if value != "auto"}
    half = {"enabled": dtype.itemsize == 2}
    return rest | {"zero_optimization": zero, "bf16": half, "train_micro_batch_size_per_gpu": 1}


def partitions_weights() -> bool:
    """Return whether the hardware of the process group partitions weights by ZeRO-3."""
    hardware = hardware_of_group()
    return hardware is not None and hardware.strategy_record.deepspeed_stage == 3


@contextmanager
def gather_weights(*models: "nn.Module | None") -> Iterator[None]:
    """Gather partitioned weights of models on every process, and partition them again at the end."""
    weights = [p for model in models if model is not None for p in model.parameters() if hasattr(p, "ds_id")]
    if not weights:
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(weights):
        yield


def is_partitioned(*weights: Any) -> bool:
    """Return whether some weights are in partitions over the processes."""
    return any(hasattr(weight, "ds_id") for weight in weights)


@contextmanager
def gather_missing(*weights: Any) -> Iterator[None]:
    """Gather those of some partitioned weights that are not gathered at the moment, and partition them at the end.

    It is for weights that are read without calling their module, whose hooks would gather them.
    """
    sharded = {id(weight): weight for weight in weights if hasattr(weight, "ds_id")}
    if not sharded:
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters
    from deepspeed.runtime.zero.partition_parameters import ZeroParamStatus

    missing = [weight for weight in sharded.values() if weight.ds_status is not ZeroParamStatus.AVAILABLE]
    with GatheredParameters(missing) if missing else nullcontext():
        yield


def unshard(model: "nn.Module") -> None:
    """Replace the FSDP2 shards of a model by full weights in CPU memory; the model can then only be saved."""
    from torch import nn

    weight: Any
    full: dict[int, nn.Parameter] = {}  # by the id of the shard, so that tied weights stay tied
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None and hasattr(weight, "full_tensor"):
                if id(weight) not in full:
                    full[id(weight)] = nn.Parameter(weight.detach().full_tensor().cpu(), requires_grad=False)
                module._parameters[name] = full[id(weight)]


def save_learned_only(engine: Any, policy: Any) -> None:
    """Leave frozen weights out of the checkpoints of a DeepSpeed engine whose policy has adapters."""
    if hasattr(engine, "save_checkpoint") and hasattr(policy, "peft_config"):
        engine.save_checkpoint = partial(type(engine).save_checkpoint, engine, exclude_frozen_parameters=True)


@contextmanager
def without_hooks(engine: Any) -> Iterator[None]:
    """Remove the hooks of a DeepSpeed engine, so that each process can call gathered models independently.

    The hooks gather one layer at a time and need all processes at once.
    """
    if not any(hasattr(weight, "ds_id") for weight in engine.parameters()):
        yield
        return
    from trl.models.utils import add_hooks, remove_hooks

    remove_hooks(engine)
    try:
        yield
    finally:
        add_hooks(engine)


@contextmanager
def gather_for_writing(*weights: Any) -> Iterator[None]:
    """Gather weights to be changed; the change of the first process is kept."""
    sharded = [weight for weight in weights if hasattr(weight, "ds_id")]
    with ExitStack() as stack:
        if sharded:
            from deepspeed.runtime.zero import GatheredParameters

            stack.enter_context(GatheredParameters(sharded, modifier_rank=0))
        yield
