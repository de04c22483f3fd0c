"""Estimate the memory of a stage on each device before anything is loaded.

The states are accurate to about one percent: weights, gradients and optimizer (`alignlab.pipeline.memory_per_role`),
partitioned as the strategy does it. The activations are an upper bound, computed from the model's sizes for rows of
maximum length. With h, k, f the widths of hidden states, keys and MLP, a layer keeps per token:

- for each of the two norms its input in float32, h numbers;
- in the precision of the computation: 4 h numbers that the norms divide and return; queries, keys and values before and
  after rotation and the attention's output, 3 h + 3 k; the MLP's inner states, 4 f with a gate or 2 f without.

An adapter in float32 on weights in bfloat16 keeps its input in float32 once for each matrix that it adapts, h numbers
or f. The frozen layers then need neither the numbers of the norms nor the last inner states of the MLP.

With `activation_checkpointing` a layer keeps only its input, and one layer at a time is recomputed. The estimate
assumes that attention stores no matrix and that logits are computed in chunks. While PPO samples it keeps no
activations, but the keys and values of a micro-batch's rows.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from alignlab.config.hardware import Hardware
from alignlab.config.method import Training
from alignlab.config.method_protocol import load_method
from alignlab.config.model import ModelSettings
from alignlab.config.model_size import Shape, matrices, read_shape, shape_in
from alignlab.config.schema import Config
from alignlab.data.views import load_view
from alignlab.models.references import Source
from alignlab.pipeline.memory_per_role import (
    Role,
    adapted_layers,
    bytes_each,
    computes_in_float32,
    in_bytes,
    linear_layers,
    roles,
)

CHUNK = 2**24  # logits that are in memory at a time (see alignlab.models.output_head)
CPU_TOKENS = 2048  # tokens of a micro-batch on a CPU with micro_batch_size=auto (see alignlab.training.trainer)


class Step(NamedTuple):
    """The rows of an optimizer step: devices × rows per micro-batch × accumulation.

    `is_automatic` on a CPU, where the size of a micro-batch depends on the length of its rows.
    """

    devices: int
    rows: int
    accumulation: int
    is_automatic: bool = False
    is_halved: bool = False  # where it does not fit: on a GPU with micro_batch_size=auto

    def __str__(self) -> str:
        devices = f"{self.devices} device{'s' * (self.devices != 1)}"
        total = self.devices * self.rows * self.accumulation
        if self.is_automatic:
            return f"{devices}, {total} rows per step, micro-batch: chosen automatically (CPU)"
        rows = f"micro-batch {self.rows}{' (auto)' * self.is_halved}"
        return f"{devices} × {rows} × accumulation {self.accumulation} = {total} rows per step"


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
    """Estimate the memory of a stage on each device.

    `micro_batch_size=auto` on a GPU is halved until the stage fits, as a run does it that runs out of memory.
    """
    split = step(config, settings)
    states = roles(config, settings, inputs, base, split.devices)
    shape = shape_of(config, inputs["policy"].path, base.path)
    memory = MemoryFit(split, states, None, available(config.hardware))
    while shape is not None:
        memory = memory._replace(step=split, activations=activations(shape, config, settings, split.rows))
        if memory.fits is not False or not split.is_halved or split.rows == 1:
            break
        split = halved(split)
    return memory


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
    is_halved = config.hardware.micro_batch_size is None and not is_automatic
    return Step(devices, rows, share // rows, is_automatic, is_halved)


def halved(split: Step) -> Step:
    """Return a step with at most half as many rows per micro-batch."""
    share = split.rows * split.accumulation
    rows = max(size for size in range(1, split.rows // 2 + 1) if share % size == 0)
    return split._replace(rows=rows, accumulation=share // rows)


def length(settings: Training) -> int:
    """Return the maximum number of tokens of a row; a pair holds two answers."""
    return settings.max_length * max(1, len(load_view(load_method(settings.name).view).COMPLETIONS))


def activations(shape: Shape, config: Config, settings: Training, rows: int) -> int:
    """Return the bytes beside the states: those of an update, or of sampling where that needs more."""
    width = bytes_each(config.hardware)
    tokens = rows * length(settings)
    adapter = config.model.adapter
    if adapter is not None and computes_in_float32(config.hardware):
        layer = adapted_layer_bytes(shape, adapter.target_modules) * tokens
    else:
        layer = layer_bytes(shape, width) * tokens
    if settings.activation_checkpointing:
        kept = shape.hidden * width * tokens * shape.layers + layer
    else:
        kept = layer * shape.layers
    learning = 2 if getattr(settings, "value", None) in ("separate", "adapter") else 1
    logits = min(tokens * shape.vocabulary, CHUNK) * 4 * 3  # with their exponentials and their gradient
    return max(kept * learning + logits, cache_bytes(shape, settings, rows, width))


def cache_bytes(shape: Shape, settings: Training, rows: int, width: int) -> int:
    """Return the bytes of the keys and values while the policy samples; 0 for a method that does not."""
    if not load_method(settings.name).generates:
        return 0
    return 2 * shape.keys * shape.layers * rows * settings.max_length * width


def layer_bytes(shape: Shape, width: int) -> int:
    """Return the bytes that a layer stores per token."""
    inner = 3 * shape.hidden + 3 * shape.keys + (4 if shape.gated else 2) * shape.mlp
    return 2 * shape.hidden * (4 + 2 * width) + inner * width


def adapted_layer_bytes(shape: Shape, targets: str | Sequence[str]) -> int:
    """Return the bytes that a frozen layer in bfloat16 stores per token with an adapter in float32."""
    layers = matrices(shape)
    adapted = adapted_layers(layers, targets) or linear_layers(layers)  # other names than those of the family: all
    inputs = sum(size[1] for size in adapted.values()) // shape.layers
    inner = 3 * shape.hidden + 3 * shape.keys + (3 if shape.gated else 1) * shape.mlp
    return 2 * shape.hidden * 4 + inner * 2 + inputs * 4


def shape_of(config: Config, *folders: Path) -> Shape | None:
    """Return the sizes of a model from its config.json, else from its YAML, else None."""
    for folder in (*folders, *config.model.local_folders):
        if shape := shape_in(folder):
            return shape
    return shape_of_yaml(config.model)


def shape_of_yaml(model: ModelSettings) -> Shape | None:
    """Return the sizes that a model's YAML states, else None."""
    stated = model.stated_shape
    return None if stated is None else read_shape(stated.model_dump())


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
    """Return whether the run computes on CPUs."""
    from alignlab.runtime.distributed import gpu_count

    return not gpu_count(hardware) and not is_elsewhere(hardware)


def is_elsewhere(hardware: Hardware) -> bool:
    """Return whether this is a plan for another machine: cuda, or bfloat16, where there is no GPU."""
    from alignlab.runtime.distributed import gpu_count

    for_gpus = hardware.device == "cuda" or (hardware.device == "auto" and hardware.dtype == "bfloat16")
    return for_gpus and not gpu_count(hardware)


def describe(memory: MemoryFit) -> Iterator[str]:
    """Yield the lines of the plan: the split of a step, and the memory of each device."""
    yield str(memory.step)
    if memory.activations is None and not any(role.size for role in memory.roles):
        yield "memory: unknown until the base model is there; model.parameters states its size"
        return
    parts = ", ".join(map(str, memory.roles))
    stored = "unknown" if memory.activations is None else f"up to {in_bytes(memory.activations)}"
    total = "" if memory.total is None else f" = {in_bytes(memory.total)}"
    limit = "; hardware.memory_gb is unknown" if memory.available is None else f" of {in_bytes(memory.available)}"
    yield f"memory of each: {parts}, activations {stored}{total}{limit}"
