"""Whether a stage fits: what each device of the chosen hardware has to hold, worked out before anything is loaded.

States are exact to the percent: weights, gradients and optimizer (`alignlab.pipeline.memory_per_role`), shared out as
the strategy does it. Activations are counted layer by layer from the model's shape, for rows of full length, and are
thus an upper end: per token and layer the two norms and their inputs in float32 (4 h numbers), and in the precision of
the computation queries, keys and values before and after their rotation and the attention's output (3 h + 3 k), and
what a gated MLP keeps (4 f, or 2 f without a gate), where h, k, f are the widths of states, keys and MLP. With
`activation_checkpointing` each layer keeps its input alone, and one layer at a time is computed again. Attention is
taken to keep no matrix, and the loss to be computed in chunks; PPO keeps the logits of its completions. Mixed
precision in one process or under ddp keeps a copy of the weights besides, in half.
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

TOGETHER = 2048  # tokens that a CPU computes at once where nothing is set (see alignlab.training.trainer)


class Shape(NamedTuple):
    """The widths of a transformer: states, keys, MLP; its layers and its vocabulary; whether the MLP has a gate."""

    hidden: int
    keys: int
    mlp: int
    layers: int
    vocabulary: int
    gated: bool


class Step(NamedTuple):
    """How an optimizer step is cut: devices × rows that each computes at once × accumulation.

    `quick` where the rows at once are a CPU's affair, which takes more of them where they are short.
    """

    devices: int
    rows: int
    accumulation: int
    quick: bool = False

    def __str__(self) -> str:
        devices = f"{self.devices} device{'s' * (self.devices != 1)}"
        whole = self.devices * self.rows * self.accumulation
        if self.quick:
            return f"{devices}, {whole} rows a step, as many at once as is quick"
        return f"{devices} × {self.rows} rows at once × {self.accumulation} accumulated = {whole} rows a step"


class Room(NamedTuple):
    """What a device has to hold, and how much it has; None where that is unknown."""

    step: Step
    roles: list[Role]
    activations: int | None
    available: int | None

    @property
    def states(self) -> int | None:
        """Weights, gradients and optimizer of all roles."""
        sizes = [role.size for role in self.roles]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def whole(self) -> int | None:
        """All that is counted."""
        return None if self.states is None or self.activations is None else self.states + self.activations

    @property
    def fits(self) -> bool | None:
        """Whether it fits; None where that cannot be told."""
        needed = self.whole if self.whole is not None else self.states
        return None if needed is None or self.available is None else needed <= self.available


def room(config: Config, settings: Training, inputs: Mapping[str, Source], base: Source) -> Room:
    """Work out what a stage takes on each device."""
    cut = step(config, settings)
    found = roles(config, settings, inputs, base, cut.devices)
    shape = shape_of(config, inputs["policy"].path, base.path)
    known = None if shape is None else activations(shape, config, settings, cut.rows)
    return Room(cut, found, known, available(config.hardware))


def step(config: Config, settings: Training) -> Step:
    """How a step of a stage is cut on the hardware of the config."""
    from alignlab.runtime.rendezvous import total_processes

    devices = total_processes(config.hardware)
    share = max(1, settings.step_size // devices)
    rows = min(config.hardware.micro_batch_size or share, share)
    quick = config.hardware.micro_batch_size is None and on_cpus(config.hardware)
    if quick:
        most = max(1, TOGETHER // length(settings))
        rows = max(size for size in range(1, share + 1) if share % size == 0 and size <= most)
    return Step(devices, rows, share // rows, quick)


def length(settings: Training) -> int:
    """The tokens of the longest row: a pair is two answers."""
    return settings.max_length * (2 if load_method(settings.name).view == "pairs" else 1)


def activations(shape: Shape, config: Config, settings: Training, rows: int) -> int:
    """What the forward pass of all networks that learn leaves for the backward pass, in bytes."""
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
    return kept * learning + logits + copies(shape, config, half)


def copies(shape: Shape, config: Config, half: bool) -> int:
    """The half copy of the weights that mixed precision works with, where DeepSpeed does not hold the weights so."""
    return 2 * parameters(shape) if half and config.hardware.strategy_record.keeps_half_copy else 0


def parameters(shape: Shape) -> int:
    """The weights of the layers and of one embedding, about: norms and biases are left out."""
    attention = 2 * shape.hidden * (shape.hidden + shape.keys)
    return shape.layers * (attention + (3 if shape.gated else 2) * shape.hidden * shape.mlp) + (
        shape.vocabulary * shape.hidden
    )


def layer_bytes(shape: Shape, width: int) -> int:
    """What a layer keeps of a token."""
    inner = 3 * shape.hidden + 3 * shape.keys + (4 if shape.gated else 2) * shape.mlp
    return 4 * shape.hidden * 4 + inner * width


def shape_of(config: Config, *folders: Path) -> Shape | None:
    """The shape of a model at hand, else the one that its YAML says, else None."""
    for folder in folders:
        if (folder / "config.json").exists():
            return read_shape(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    stated = config.model.stated_shape
    return None if stated is None else read_shape(stated.model_dump())


def read_shape(settings: Mapping[str, Any]) -> Shape | None:
    """A shape from the settings of a model, under the names that its family has for them; None for one unknown."""

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
    """The memory of one device: as given, else the GPU's, else this process's share of main memory."""
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
    """Whether CPUs do the work: bfloat16 without a GPU is a plan for GPUs that are elsewhere."""
    from alignlab.runtime.distributed import gpu_count

    return not gpu_count(hardware) and (hardware.device == "cpu" or hardware.dtype != "bfloat16")


def told(found: Room) -> Iterator[str]:
    """A room in words: how a step is cut, what a device holds, whether that fits."""
    yield str(found.step)
    if found.activations is None and not any(role.size for role in found.roles):
        yield "memory: unknown until the base model is made"
        return
    names = ", ".join(map(str, found.roles))
    more = "activations unknown" if found.activations is None else f"activations up to {in_bytes(found.activations)}"
    whole = "" if found.whole is None else f" = {in_bytes(found.whole)}"
    has = "" if found.available is None else f" of {in_bytes(found.available)}"
    yield f"memory of each: {names}, {more}{whole}{has}"


def advice(config: Config, settings: Training, inputs: Mapping[str, Source], base: Source) -> str:
    """What to say where a stage does not fit; nothing where it does, or where that cannot be told."""
    if room(config, settings, inputs, base).fits is not False:
        return ""

    def fits(change: Change) -> bool:
        return bool(room(change.config, change.settings, inputs, base).fits)

    alone = [next(filter(fits, same), None) for same in changes(config, settings)]
    would = [change.said for change in alone if change]
    if not would:
        would = [change.said for change in [all_at_once(config, settings)] if fits(change)]
    return f"does not fit; try {', or '.join(would)}" if would else f"does not fit; try {LAST}"


LAST = "more devices under hardware=zero3, or a smaller model: fewer rows at once and recomputed activations do not do"


class Change(NamedTuple):
    """Other settings under which a stage may fit, in the words of the command."""

    said: str
    config: Config
    settings: Training


def changes(config: Config, settings: Training) -> Iterator[list[Change]]:
    """What may make a stage fit, the least change first; of each kind one is enough."""
    now = step(config, settings)
    share = settings.step_size // now.devices
    smaller = [size for size in range(now.rows - 1, 0, -1) if share % size == 0]
    yield [Change(f"{ROWS}={size}", with_hardware(config, {"micro_batch_size": size}), settings) for size in smaller]
    if not settings.activation_checkpointing:
        yield [Change(f"{AGAIN}=true", config, settings.model_copy(update={"activation_checkpointing": True}))]
    if now.devices > 1 and not config.hardware.strategy_record.shards_weights:
        yield [Change("hardware=zero3", with_hardware(config, {"strategy": SHARDED}), settings)]
    if config.model.adapter is None:
        yield [Change("model/adapter=lora", with_lora(config), settings)]
    if now.devices > 1:
        yield [Change("hardware=zero3_offload", with_hardware(config, OFFLOADED), settings)]


def all_at_once(config: Config, settings: Training) -> Change:
    """One row at once, activations recomputed, and shares of everything in main memory where there are several."""
    several = step(config, settings).devices > 1
    lean = settings.model_copy(update={"activation_checkpointing": True})
    said = f"{ROWS}=1 {AGAIN}=true model/adapter=lora" + (" hardware=zero3_offload" if several else "")
    least = with_hardware(with_lora(config), {"micro_batch_size": 1} | (OFFLOADED if several else {}))
    return Change(said, least, lean)


SHARDED = strategies.DEEPSPEED_SHARDED  # what a model that does not fit is advised to use
ROWS, AGAIN = "hardware.micro_batch_size", "method.activation_checkpointing"
IN_MAIN_MEMORY = Zero(stage=3, offload_optimizer={"device": "cpu"}, offload_param={"device": "cpu"})  # type: ignore[arg-type]
OFFLOADED = {"strategy": SHARDED, "deepspeed": DeepSpeed(zero_optimization=IN_MAIN_MEMORY)}


def with_lora(config: Config) -> Config:
    """The config with the adapter of conf/model/adapter/lora.yaml."""
    import yaml

    values = yaml.safe_load((conf_folder() / "model" / "adapter" / "lora.yaml").read_text(encoding="utf-8"))
    return config.model_copy(update={"model": config.model.model_copy(update={"adapter": Adapter(**values)})})


def with_hardware(config: Config, changed: Mapping[str, Any]) -> Config:
    """The config on other hardware."""
    return config.model_copy(update={"hardware": config.hardware.model_copy(update=dict(changed))})


def check(config: Config, settings: Training, inputs: Mapping[str, Source], base: Source) -> Failure | None:
    """What to raise where the states alone are more than a device has."""
    found = room(config, settings, inputs, base)
    if found.states is None or found.available is None or found.states <= found.available:
        return None
    what = f"{settings.name} needs {in_bytes(found.states)} on each device, which has {in_bytes(found.available)}"
    return failure("hardware", what, advice(config, settings, inputs, base))
