"""Estimate the memory of a stage on each device before anything is loaded, and suggest settings that fit.

The states are accurate to about one percent: weights, gradients and optimizer (`alignlab.pipeline.memory_per_role`),
partitioned as the strategy does it. The activations are an upper bound, computed from the model's sizes for rows of
maximum length. With h, k, f the widths of hidden states, keys and MLP, a layer keeps per token:

- in float32 the two norms and their inputs: 4 h numbers;
- in the precision of the computation the queries, keys and values before and after rotation and the attention's output,
  3 h + 3 k, and the MLP's inner states, 4 f with a gate or 2 f without.

With `activation_checkpointing` a layer keeps only its input, and one layer at a time is recomputed. The estimate
assumes that attention stores no matrix and that the loss is computed in chunks; PPO stores the logits of its
completions.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config import strategies
from alignlab.config.groups import conf_folder
from alignlab.config.hardware import DeepSpeed, Hardware, Zero
from alignlab.config.method import Training
from alignlab.config.method_protocol import load_method
from alignlab.config.model import Adapter
from alignlab.config.schema import Config
from alignlab.errors import Failure, failure
from alignlab.models.references import Source
from alignlab.pipeline.memory_per_role import Role, in_bytes, is_half, roles

CPU_TOKENS = 2048  # tokens of a micro-batch on a CPU with micro_batch_size=auto (see alignlab.training.trainer)


class Shape(NamedTuple):
    """The sizes of a transformer: widths of hidden states, keys and MLP; layers; vocabulary; a gated MLP or not."""

    hidden: int
    keys: int
    mlp: int
    layers: int
    vocabulary: int
    gated: bool


class Step(NamedTuple):
    """The rows of an optimizer step: devices × rows per micro-batch × accumulation.

    `is_automatic` on a CPU, where the size of a micro-batch depends on the length of its rows.
    """

    devices: int
    rows: int
    accumulation: int
    is_automatic: bool = False

    def __str__(self) -> str:
        devices = f"{self.devices} device{'s' * (self.devices != 1)}"
        total = self.devices * self.rows * self.accumulation
        if self.is_automatic:
            return f"{devices}, {total} rows per step, micro-batch: chosen automatically (CPU)"
        return f"{devices} × micro-batch {self.rows} × accumulation {self.accumulation} = {total} rows per step"


class MemoryFit(NamedTuple):
    """The memory that a stage needs on each device, and the memory of the device; None where unknown."""

    step: Step
    roles: list[Role]
    activations: int | None
    available: int | None

    @property
    def states(self) -> int | None:
        """Return the bytes of weights, gradients and optimizer of all roles; None where one is unknown."""
        sizes = [role.size for role in self.roles]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def total(self) -> int | None:
        """Return the bytes of states and activations; None where either is unknown."""
        return None if self.states is None or self.activations is None else self.states + self.activations

    @property
    def fits(self) -> bool | None:
        """Return whether the stage fits; None where that is unknown."""
        needed = self.total if self.total is not None else self.states
        return None if needed is None or self.available is None else needed <= self.available


def memory_fit(config: Config, settings: Training, inputs: Mapping[str, Source], base: Source) -> MemoryFit:
    """Estimate the memory of a stage on each device."""
    split = step(config, settings)
    states = roles(config, settings, inputs, base, split.devices)
    shape = shape_of(config, inputs["policy"].path, base.path)
    activation_bytes = None if shape is None else activations(shape, config, settings, split.rows)
    return MemoryFit(split, states, activation_bytes, available(config.hardware))


def step(config: Config, settings: Training) -> Step:
    """Return how an optimizer step is split on the hardware of the config."""
    from alignlab.runtime.rendezvous import total_processes

    devices = total_processes(config.hardware)
    share = max(1, settings.step_size // devices)
    rows = min(config.hardware.micro_batch_size or share, share)
    is_automatic = config.hardware.micro_batch_size is None and on_cpus(config.hardware)
    if is_automatic:
        most = max(1, CPU_TOKENS // length(settings))
        rows = max(size for size in range(1, share + 1) if share % size == 0 and size <= most)
    return Step(devices, rows, share // rows, is_automatic)


def length(settings: Training) -> int:
    """Return the maximum number of tokens of a row; a pair holds two answers."""
    return settings.max_length * (2 if load_method(settings.name).view == "pairs" else 1)


def activations(shape: Shape, config: Config, settings: Training, rows: int) -> int:
    """Return the bytes that the forward pass of all trained networks stores for the backward pass."""
    half = is_half(config.hardware)
    width = 2 if half else 4
    tokens = rows * length(settings)
    layer = layer_bytes(shape, width) * tokens
    if settings.activation_checkpointing:
        kept = shape.hidden * width * tokens * shape.layers + layer
    else:
        kept = layer * shape.layers
    logits = rows * getattr(settings, "max_new_tokens", 0) * shape.vocabulary * 4 * 3
    learning = 2 if getattr(settings, "value", None) == "separate" else 1
    return kept * learning + logits


def layer_bytes(shape: Shape, width: int) -> int:
    """Return the bytes that a layer stores per token."""
    inner = 3 * shape.hidden + 3 * shape.keys + (4 if shape.gated else 2) * shape.mlp
    return 4 * shape.hidden * 4 + inner * width


def shape_of(config: Config, *folders: Path) -> Shape | None:
    """Return the sizes of a model from its config.json, else from its YAML, else None."""
    for folder in folders:
        if (folder / "config.json").exists():
            return read_shape(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    stated = config.model.stated_shape
    return None if stated is None else read_shape(stated.model_dump())


def read_shape(settings: Mapping[str, Any]) -> Shape | None:
    """Read the sizes from a model's config, under the keys of its family; None for an unknown family."""

    def first(*names: str) -> int | None:
        return next((int(settings[name]) for name in names if settings.get(name)), None)

    hidden, layers = first("hidden_size", "d_model", "n_embd"), first("num_hidden_layers", "num_layers", "n_layer")
    vocabulary = first("vocab_size")
    if hidden is None or layers is None or vocabulary is None:
        return None
    heads = first("num_attention_heads", "num_heads", "n_head") or 1
    width = first("head_dim", "d_kv") or hidden // heads
    layers += int(settings.get("num_decoder_layers") or 0)
    mlp = first("intermediate_size", "d_ff", "n_inner") or 4 * hidden
    plain = settings.get("model_type") in {"gpt_neox", "gpt2", "t5"} and not settings.get("is_gated_act")
    return Shape(hidden, (first("num_key_value_heads") or heads) * width, mlp, layers, vocabulary, not plain)


def available(hardware: Hardware) -> int | None:
    """Return the memory of one device: hardware.memory_gb, else the GPU's, else this process's share of main memory."""
    from alignlab.runtime.distributed import gpu_count, local_world_size

    if hardware.memory_gb is not None:
        return int(hardware.memory_gb * 1e9)
    if gpu_count(hardware):
        import torch

        return int(torch.cuda.get_device_properties(0).total_memory)
    if not on_cpus(hardware):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // local_world_size(hardware)


def on_cpus(hardware: Hardware) -> bool:
    """Return whether the run computes on CPUs; bfloat16 without a GPU is a plan for another machine."""
    from alignlab.runtime.distributed import gpu_count

    return not gpu_count(hardware) and (hardware.device == "cpu" or hardware.dtype != "bfloat16")


def describe(memory: MemoryFit) -> Iterator[str]:
    """Yield the lines of the plan: the split of a step, and the memory of each device."""
    yield str(memory.step)
    if memory.activations is None and not any(role.size for role in memory.roles):
        yield "memory: unknown until the base model is made"
        return
    parts = ", ".join(map(str, memory.roles))
    stored = "unknown" if memory.activations is None else f"up to {in_bytes(memory.activations)}"
    total = "" if memory.total is None else f" = {in_bytes(memory.total)}"
    limit = "" if memory.available is None else f" of {in_bytes(memory.available)}"
    yield f"memory of each: {parts}, activations {stored}{total}{limit}"


def advice(config: Config, settings: Training, inputs: Mapping[str, Source], base: Source) -> str:
    """Return a suggestion for a stage that does not fit; an empty text where it fits or that is unknown."""
    if memory_fit(config, settings, inputs, base).fits is not False:
        return ""

    def fits(change: Change) -> bool:
        return bool(memory_fit(change.config, change.settings, inputs, base).fits)

    first_fits = [next(filter(fits, kind), None) for kind in changes(config, settings)]
    overrides = [change.overrides for change in first_fits if change]
    if not overrides:
        overrides = [change.overrides for change in [all_changes(config, settings)] if fits(change)]
    return f"does not fit; try {', or '.join(overrides) or LAST}"


LAST = "more devices with hardware=zero3, or a smaller model; smaller micro-batches and checkpointing are not enough"


class Change(NamedTuple):
    """Settings under which a stage may fit, and the overrides that set them."""

    overrides: str
    config: Config
    settings: Training


def changes(config: Config, settings: Training) -> Iterator[list[Change]]:
    """Yield the kinds of changes that may make a stage fit; within a kind, the smallest change comes first."""
    now = step(config, settings)
    share = settings.step_size // now.devices
    smaller = [size for size in range(now.rows - 1, 0, -1) if share % size == 0]
    yield [Change(f"{ROWS}={size}", with_hardware(config, {"micro_batch_size": size}), settings) for size in smaller]
    if not settings.activation_checkpointing:
        yield [Change(f"{CHECKPOINTING}=true", config, settings.model_copy(update={"activation_checkpointing": True}))]
    if now.devices > 1 and not config.hardware.strategy_record.shards_weights:
        yield [Change("hardware=zero3", with_hardware(config, {"strategy": SHARDED}), settings)]
    if config.model.adapter is None:
        yield [Change("model/adapter=lora", with_lora(config), settings)]
    if now.devices > 1:
        yield [Change("hardware=zero3_offload", with_hardware(config, OFFLOADED), settings)]


def all_changes(config: Config, settings: Training) -> Change:
    """Combine all changes: one row per micro-batch, activation checkpointing, LoRA; offloading on several devices."""
    several = step(config, settings).devices > 1
    checkpointed = settings.model_copy(update={"activation_checkpointing": True})
    overrides = f"{ROWS}=1 {CHECKPOINTING}=true model/adapter=lora" + (" hardware=zero3_offload" if several else "")
    least = with_hardware(with_lora(config), {"micro_batch_size": 1} | (OFFLOADED if several else {}))
    return Change(overrides, least, checkpointed)


SHARDED = strategies.DEEPSPEED_SHARDED  # the strategy to suggest for a model that does not fit
ROWS, CHECKPOINTING = "hardware.micro_batch_size", "method.activation_checkpointing"
IN_MAIN_MEMORY = Zero(stage=3, offload_optimizer={"device": "cpu"}, offload_param={"device": "cpu"})  # type: ignore[arg-type]
OFFLOADED = {"strategy": SHARDED, "deepspeed": DeepSpeed(zero_optimization=IN_MAIN_MEMORY)}


def with_lora(config: Config) -> Config:
    """Return the config with the adapter of conf/model/adapter/lora.yaml."""
    import yaml

    values = yaml.safe_load((conf_folder() / "model" / "adapter" / "lora.yaml").read_text(encoding="utf-8"))
    return config.model_copy(update={"model": config.model.model_copy(update={"adapter": Adapter(**values)})})


def with_hardware(config: Config, changed: Mapping[str, Any]) -> Config:
    """Return the config with other hardware settings."""
    return config.model_copy(update={"hardware": config.hardware.model_copy(update=dict(changed))})


def check(config: Config, settings: Training, inputs: Mapping[str, Source], base: Source) -> Failure | None:
    """Return the failure to raise where the states alone exceed the memory of a device, else None."""
    memory = memory_fit(config, settings, inputs, base)
    if memory.states is None or memory.available is None or memory.states <= memory.available:
        return None
    what = f"{settings.name} needs {in_bytes(memory.states)} on each device, which has {in_bytes(memory.available)}"
    return failure("hardware", what, advice(config, settings, inputs, base))
