"""Settings of `conf/hardware/`: the number of processes, their devices, and the blocks for DeepSpeed and FSDP.

The blocks `deepspeed` and `fsdp` use the libraries' own keys. Batch sizes, accumulation, clipping, precision, optimizer
and schedule are not among them: they are derived from `method` and `hardware`, so that two places cannot disagree. For
a key that is null the library's default applies.
"""

import os
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from alignlab.config import strategies
from alignlab.config.settings import Count, OptionName, Positive, Settings
from alignlab.config.strategy import Strategy, load_strategy
from alignlab.errors import Fault


def _none_for_auto(value: Any) -> Any:
    return None if value == "auto" else value


Auto = BeforeValidator(_none_for_auto)  # `auto` is None, and resolved on the machine that runs
Size = Annotated[int, Field(ge=0)] | Literal["auto"] | None
Switch = bool | None


class OffloadParam(Settings):
    """The device that holds partitioned weights while they are not in use."""

    device: Literal["none", "cpu", "nvme"]
    nvme_path: str | None = None
    buffer_count: Count | None = None
    buffer_size: Size = None
    max_in_cpu: Size = None
    pin_memory: Switch = None


class OffloadOptimizer(Settings):
    """The device that holds the optimizer's moments and computes its step."""

    device: Literal["none", "cpu", "nvme"]
    nvme_path: str | None = None
    buffer_count: Count | None = None
    pin_memory: Switch = None
    pipeline_read: Switch = None
    pipeline_write: Switch = None
    fast_init: Switch = None
    ratio: Annotated[float, Field(ge=0, le=1)] | None = None


class Zero(Settings):
    """DeepSpeed's `zero_optimization` (DeepSpeedZeroConfig)."""

    stage: Literal[0, 1, 2, 3]
    contiguous_gradients: Switch = None
    reduce_scatter: Switch = None
    reduce_bucket_size: Size = None
    allgather_partitions: Switch = None
    allgather_bucket_size: Size = None
    overlap_comm: Switch = None
    round_robin_gradients: Switch = None
    sub_group_size: Size = None
    ignore_unused_parameters: Switch = None
    offload_param: OffloadParam | None = None
    offload_optimizer: OffloadOptimizer | None = None
    stage3_prefetch_bucket_size: Size = None
    stage3_param_persistence_threshold: Size = None
    stage3_max_live_parameters: Size = None
    stage3_max_reuse_distance: Size = None
    stage3_module_granularity_threshold: Size = None
    stage3_use_all_reduce_for_fetch_params: Switch = None
    zero_hpz_partition_size: Count | None = None
    zero_quantized_weights: Switch = None
    zero_quantized_gradients: Switch = None
    memory_efficient_linear: Switch = None


class DeepSpeed(Settings):
    """DeepSpeed's configuration, without the keys that are derived from the experiment."""

    zero_optimization: Zero
    communication_data_type: Literal["fp32", "fp16", "bf16"] | None = None
    prescale_gradients: Switch = None
    gradient_predivide_factor: Positive | None = None
    zero_allow_untested_optimizer: Switch = None
    zero_force_ds_cpu_optimizer: Switch = None
    steps_per_print: Count | None = None
    wall_clock_breakdown: Switch = None
    memory_breakdown: Switch = None
    dump_state: Switch = None

    def block(self) -> dict[str, Any]:
        """Return the configuration for DeepSpeed; keys that are null are left out."""
        values: dict[str, Any] = {"steps_per_print": 2**31 - 1}  # its default prints every ten steps
        values |= self.model_dump(mode="json", exclude_none=True)
        values["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = self.zero_optimization.stage == 3
        auto = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
        return values | dict.fromkeys((*auto, "gradient_clipping"), "auto") | {"bf16": {"enabled": "auto"}}


class Fsdp(Settings):
    """FSDP2's configuration, under the keys of transformers' `fsdp_config`."""

    reshard_after_forward: bool
    auto_wrap_policy: Literal["TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP"]
    transformer_layer_cls_to_wrap: Annotated[tuple[str, ...], Field(strict=False)] | None = None
    min_num_params: Count | None = None
    cpu_ram_efficient_loading: bool
    cpu_offload: bool
    state_dict_type: Literal["FULL_STATE_DICT", "SHARDED_STATE_DICT"]

    def block(self) -> dict[str, Any]:
        """Return the configuration for transformers."""
        return {"version": 2, **self.model_dump(mode="json", exclude_none=True)}


class Hardware(Settings):
    """The device, number format and processes of a run, and the size of a micro-batch."""

    strategy: Annotated[str, OptionName("hardware", strategies.NAMES)]
    device: Literal["auto", "cpu", "cuda"]
    dtype: Literal["auto", "float32", "bfloat16"]
    micro_batch_size: Annotated[Count | None, Auto]
    layout: Literal["tokens", "rows"] = "tokens"
    rollout_batch_size: Annotated[Count | None, Auto] = None
    threads: Count | None
    matmul: Literal["auto", "torch"] = "auto"
    processes: Annotated[Count | None, Auto] = None
    nodes: Annotated[Count | None, Auto] = None
    rank: Annotated[Annotated[int, Field(ge=0)] | None, Auto] = None
    rendezvous: Annotated[str | None, Auto] = None
    memory_gb: Positive | None = None
    tokens_per_second: Positive | None = None
    deepspeed: DeepSpeed | None = None
    fsdp: Fsdp | None = None

    @property
    def strategy_record(self) -> Strategy:
        """Return the record of the strategy."""
        return load_strategy(self.strategy)

    def faults(self) -> Iterator[Fault]:
        several = (self.processes or 1) > 1 or (self.nodes or 1) > 1
        record = self.strategy_record
        if several and not record.several_processes:
            yield Fault("processes", f"hardware={self.strategy} is one process", "use hardware=ddp or hardware=zero3")
        stage = record.deepspeed_stage
        set_stage = self.deepspeed.zero_optimization.stage if self.deepspeed else None
        if stage is not None and set_stage != stage:
            yield Fault(
                "deepspeed.zero_optimization.stage", f"{set_stage} is not hardware={self.strategy}'s", f"use {stage}"
            )
        if stage is None and self.deepspeed:
            yield Fault("deepspeed", f"hardware={self.strategy} does not use it", "use hardware=zero2 or zero3")
        if record.uses_fsdp != (self.fsdp is not None):
            yield Fault("fsdp", "belongs to hardware=fsdp2, which needs it", "use hardware=fsdp2")
        if self.nodes and self.nodes > 1:
            for name in () if "SLURM_NODEID" in os.environ else ("rank", "rendezvous"):
                if getattr(self, name) is None:
                    yield Fault(name, f"missing, though nodes is {self.nodes}", MANY_NODES[name])
        if self.rank is not None and self.rank >= (self.nodes or 1):
            yield Fault("rank", f"{self.rank} is not below nodes ({self.nodes or 1})", "number the machines from 0")


MANY_NODES = {
    "rank": "give this machine's number, from 0",
    "rendezvous": "give host:port of the first machine",
}
