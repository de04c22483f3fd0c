"""Compute the memory of the networks of a stage from their sizes, before anything is loaded.

A trained network takes 16 bytes per parameter in float32: the weight, the gradient and Adam's two moments, four bytes
each. In bfloat16 the weight takes two, and the optimizer twelve, since it keeps a float32 copy of the weight
(Rajbhandari et al. 2020, section 3.1); the gradient takes two under DeepSpeed, and four in one process or under DDP
(`alignlab.training.master_weights`). Adapters train in float32, except under DeepSpeed. DDP keeps gradients twice, the
second time in the buckets that it exchanges. ZeRO-2 partitions gradients and optimizer over the devices, ZeRO-3 and
FSDP also the weights (figure 1 there). A frozen network takes its weights in the precision of the run, and ZeRO-3
partitions the reference and the weights under an adapter. While PPO samples under ZeRO-3, the weights of the policy are
gathered on each device; while it measures, those of the value function, and then those of policy and reference.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config.hardware import Hardware
from alignlab.config.method_protocol import load_method
from alignlab.config.model_size import Shapes, count, matrices, read_shape, shape_in, shapes, tied_to
from alignlab.config.schema import Config
from alignlab.models.references import Source

FOUR_BIT_BYTES = 4.127 / 8  # per weight, with its doubly quantised constants (Dettmers et al. 2023, section 3)
HEADS = ("lm_head.", "score.", "embed_out.")
EMBEDDINGS = ("embed", "wte", "wpe", "shared")


class Role(NamedTuple):
    """A network of a stage and its bytes; None where they are unknown."""

    name: str
    size: int | None
    why: str = ""  # the reason for a size of 0, or a remark

    def __str__(self) -> str:
        if self.size is None:
            return f"{self.name} unknown"
        return f"{self.name} {in_bytes(self.size)}" + (f" ({self.why})" if self.why else "")


def body(tensors: Shapes) -> Shapes:
    """Return the tensors of a model without its head."""
    return {name: shape for name, shape in tensors.items() if not name.startswith(HEADS)}


def linear_layers(tensors: Shapes) -> Shapes:
    """Return the matrices of linear layers, without embeddings and heads."""
    return {
        name: shape
        for name, shape in tensors.items()
        if len(shape) == 2
        and name.endswith(".weight")
        and not name.startswith(HEADS)
        and not any(word in name for word in EMBEDDINGS)
    }


def adapted_layers(tensors: Shapes, targets: str | Sequence[str]) -> Shapes:
    """Return the matrices that a LoRA adapter adapts."""
    layers = linear_layers(tensors)
    return {name: layers[name] for name in layers if targets == "all-linear" or name.split(".")[-2] in targets}


def low_rank(tensors: Shapes, rank: int, targets: str | Sequence[str]) -> int:
    """Return the number of parameters of a LoRA adapter (Hu et al. 2021): rank × (in + out) per adapted layer."""
    return sum(rank * sum(shape) for shape in adapted_layers(tensors, targets).values())


class BytesPerParameter(NamedTuple):
    """Bytes per parameter of a trained network: weight, gradient and optimizer state."""

    weight: int
    gradient: int
    optimizer: int


def bytes_per_parameter(hardware: Hardware, adapter: bool) -> BytesPerParameter:
    """Return the bytes of a trained parameter; an adapter is in float32, except under DeepSpeed."""
    if is_half(hardware) and hardware.deepspeed:
        return BytesPerParameter(2, 2, 12)
    if is_half(hardware) and hardware.strategy_record.keeps_half_copy and not adapter:
        return BytesPerParameter(2, 4, 12)
    return BytesPerParameter(4, 4, 8)


def computes_in_float32(hardware: Hardware) -> bool:
    """Return whether an adapter computes in float32 on weights in bfloat16: DeepSpeed and FSDP2 compute in bfloat16."""
    return is_half(hardware) and hardware.deepspeed is None and hardware.strategy_record.keeps_half_copy


def trained(parameters: int, hardware: Hardware, devices: int, adapter: bool = False) -> int:
    """Return the bytes of a trained network on one device."""
    part = bytes_per_parameter(hardware, adapter)
    zero = hardware.deepspeed.zero_optimization if hardware.deepspeed else None
    strategy = hardware.strategy_record
    shards = (strategy.shards_weights, strategy.shards_gradients, strategy.shards_optimizer)
    sharded = sum(size for size, is_sharded in zip(part, shards, strict=True) if is_sharded)
    replicated = sum(part) - sharded
    if strategy.gradient_buckets and devices > 1:
        replicated += part.gradient
    if strategy.deepspeed_stage and not strategy.shards_weights and not is_half(hardware):
        sharded += 4  # ZeRO-1 and ZeRO-2 copy their optimizer's share of the weights, in any precision
    if zero and zero.offload_param and zero.offload_param.device != "none":
        sharded -= part.weight
    if zero and zero.offload_optimizer and zero.offload_optimizer.device != "none":
        sharded -= part.gradient + part.optimizer
    return parameters * replicated + -(-parameters * sharded // devices)


def frozen(parameters: int, hardware: Hardware, devices: int) -> int:
    """Return the bytes of frozen weights on one device."""
    size = parameters * bytes_each(hardware)
    return -(-size // devices) if hardware.strategy_record.shards_weights else size


def gathered(of: "Subject", names: Sequence[str], samples: bool) -> Iterator[Role]:
    """Yield the weights that ZeRO-3 gathers on a device at a time: all of each network while the policy samples."""
    hardware = of.config.hardware
    zero = hardware.deepspeed.zero_optimization if hardware.deepspeed else None
    if of.parameters is None or zero is None or not hardware.strategy_record.shards_weights or of.devices == 1:
        return
    if samples:
        networks = 1 + ("reference" in names and of.config.model.adapter is None)
        yield Role("gathered weights", networks * of.parameters * bytes_each(hardware))
    else:
        limit = zero.stage3_max_live_parameters
        live = min(of.parameters, limit) if isinstance(limit, int) else of.parameters
        yield Role("gathered layers", live * bytes_each(hardware))


def roles(config: Config, settings: Any, inputs: Mapping[str, Source], base: Source, devices: int = 1) -> list[Role]:
    """Return the networks of a stage, which its method names in `ROLES`, with their bytes on one device."""
    tensors = tensors_of(config, inputs["policy"].path, base.path)
    stated = config.model.stated_parameters
    is_read = bool(shapes(inputs["policy"].path) or shapes(base.path))
    parameters = stated if stated is not None and not is_read else count(tensors) or None
    subject = Subject(config, settings, inputs, tensors, parameters, devices)
    method = load_method(settings.name)
    networks = [role for name in method.roles for role in MAKE[name](subject)]
    return [*networks, *gathered(subject, method.roles, method.generates)]


def tensors_of(config: Config, *folders: Path) -> Shapes:
    """Return the shapes of the base model's tensors: of its files, else by its config.json or its YAML, else none."""
    candidates = [*folders, *config.model.local_folders]
    for folder in candidates:
        if tensors := shapes(folder):
            return tensors
    shape = next(filter(None, map(shape_in, candidates)), None)
    if shape is None and config.model.stated_shape is not None:
        shape = read_shape(config.model.stated_shape.model_dump())
    return {} if shape is None else matrices(tied_to(shape, config.model.stated_parameters))


class Subject(NamedTuple):
    """The settings and sizes that a role's memory depends on."""

    config: Config
    settings: Any
    inputs: Mapping[str, Source]
    tensors: Shapes
    parameters: int | None
    devices: int


def policy(of: Subject) -> Iterator[Role]:
    """Yield the policy: all weights trained, or an adapter on frozen weights."""
    adapter, hardware = of.config.model.adapter, of.config.hardware
    if of.parameters is None:
        yield Role("policy", None)
    elif adapter is None:
        yield Role("policy", trained(of.parameters, hardware, of.devices))
    else:
        size = frozen(of.parameters, hardware, of.devices)
        if adapter.load_in_4bit:
            quantised = count(linear_layers(of.tensors))
            size = int(quantised * FOUR_BIT_BYTES) + frozen(of.parameters - quantised, hardware, of.devices)
        yield Role("frozen weights", size, "linear layers in 4 bits" if adapter.load_in_4bit else "")
        yield Role("policy's adapter", adapter_bytes(of))


def adapter_bytes(of: Subject) -> int | None:
    """Return the bytes of a trained adapter; None where the model's matrices are unknown."""
    adapter = of.config.model.adapter
    if adapter is None or not of.tensors:
        return None
    parameters = low_rank(of.tensors, adapter.r, adapter.target_modules)
    return trained(parameters, of.config.hardware, of.devices, adapter=True)


def reference(of: Subject) -> Iterator[Role]:
    """Yield the reference: a frozen copy of the policy, or the policy with its adapter off."""
    if of.config.model.adapter is None:
        size = None if of.parameters is None else frozen(of.parameters, of.config.hardware, of.devices)
        yield Role("reference", size)
    else:
        yield Role("reference", 0, "the policy with its adapter off")


def value_of(of: Subject) -> str:
    """Return the kind of the value function."""
    return str(getattr(of.settings, "value", "none"))


def value(of: Subject) -> Iterator[Role]:
    """Yield the value function: a separate network, an adapter, or a head on the policy; none without one."""
    if value_of(of) == "shared":
        yield Role("value", 0, "a head on the policy")
    elif value_of(of) == "adapter":
        yield Role("value", adapter_bytes(of), "an adapter on the policy")
    elif value_of(of) != "none":
        size = count(body(of.tensors)) if of.tensors else of.parameters
        yield Role("value", None if size is None else trained(size, of.config.hardware, of.devices))


def reward(of: Subject) -> Iterator[Role]:
    """Yield the models of the reward, in the precision of inference; a function or a server takes no memory here.

    A model that is not at hand counts as one of the policy's size, as a reward model that is trained first will be.
    """
    models = {name: source for name, source in of.inputs.items() if name != "policy"}
    for name, source in models.items():
        tensors = shapes(source.path)
        size = count(tensors) if tensors else of.parameters
        remark = "" if tensors or name == "reward_model" else "counted as the policy"
        yield Role(name.replace("_", " "), None if size is None else size * bytes_each(of.config.hardware), remark)
    if not models:
        yield Role("reward", 0, "no model")


MAKE = {"policy": policy, "reference": reference, "value": value, "reward": reward}


def bytes_each(hardware: Hardware) -> int:
    """Return the bytes per weight in a forward pass."""
    return 2 if is_half(hardware) else 4


def is_half(hardware: Hardware) -> bool:
    """Return whether the hardware computes in bfloat16."""
    from alignlab.models.load import precision_name

    return precision_name(hardware) == "bfloat16"


def in_bytes(size: float) -> str:
    """Return a size in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
