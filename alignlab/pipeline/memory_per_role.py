"""Compute the memory of the networks of a stage from their sizes, before anything is loaded.

A trained network takes 16 bytes per parameter. In float32 these are the weight, the gradient and Adam's two moments,
four bytes each. Under DeepSpeed in bfloat16 they are two for the weight, two for the gradient and twelve for the
optimizer, which keeps a float32 copy of the weight (Rajbhandari et al. 2020, section 3.1). In one process or under DDP
the gradient takes four bytes in bfloat16 too (`alignlab.training.master_weights`). Adapters train in float32.
ZeRO-2 partitions gradients and optimizer over the devices, ZeRO-3 and FSDP also the weights (figure 1 there). DDP
stores gradients twice, the second time in the buckets that it exchanges. A frozen network takes its full weights on
each device, in the precision of the run.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config.hardware import Hardware
from alignlab.config.method_protocol import load_method
from alignlab.config.schema import Config
from alignlab.models.references import Source

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


Shapes = Mapping[str, Sequence[int]]


def shapes(folder: Path) -> Shapes:
    """Read the shapes of the tensors in a model's folder, by name; empty without safetensors files.

    A safetensors file begins with the length of its JSON header in 8 bytes (little-endian).
    """
    tensors: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(size))
        tensors |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    return tensors


def count(tensors: Shapes) -> int:
    """Return the number of parameters."""
    return sum(prod(shape) for shape in tensors.values())


def body(tensors: Shapes) -> Shapes:
    """Return the tensors of a model without its head."""
    return {name: shape for name, shape in tensors.items() if not name.startswith(HEADS)}


def low_rank(tensors: Shapes, rank: int, targets: str | Sequence[str]) -> int:
    """Return the number of parameters of a LoRA adapter (Hu et al. 2021): rank × (in + out) per adapted layer."""
    total = 0
    for name, shape in tensors.items():
        layer = name.removesuffix(".weight")
        linear = len(shape) == 2 and not name.startswith(HEADS) and not any(word in name for word in EMBEDDINGS)
        is_target = targets == "all-linear" or layer.rpartition(".")[2] in targets
        total += rank * sum(shape) if linear and is_target and layer != name else 0
    return total


class BytesPerParameter(NamedTuple):
    """Bytes per parameter of a trained network: weight, gradient and optimizer state."""

    weight: int
    gradient: int
    optimizer: int


def trained(parameters: int, hardware: Hardware, devices: int, adapter: bool = False) -> int:
    """Return the bytes of a trained network on one device; an adapter is in float32, except under DeepSpeed."""
    part = BytesPerParameter(4, 4, 8)
    if is_half(hardware) and hardware.deepspeed:
        part = BytesPerParameter(2, 2, 12)
    elif is_half(hardware) and hardware.strategy_record.keeps_half_copy and not adapter:
        part = BytesPerParameter(2, 4, 12)
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
    """Return the bytes of the frozen weights under an adapter on one device."""
    each = bytes_each(hardware)
    return -(-parameters * each // devices) if hardware.strategy_record.shards_weights else parameters * each


def gathered(parameters: int, hardware: Hardware, devices: int, samples: bool) -> Iterator[Role]:
    """Yield the weights that ZeRO-3 gathers on a device at a time: all of them while the policy samples."""
    zero = hardware.deepspeed.zero_optimization if hardware.deepspeed else None
    if zero is None or not hardware.strategy_record.shards_weights or devices == 1:
        return
    limit = zero.stage3_max_live_parameters
    count_gathered = min(parameters, limit) if isinstance(limit, int) and not samples else parameters
    yield Role("gathered layers", count_gathered * (2 if is_half(hardware) else 4))


def roles(config: Config, settings: Any, inputs: Mapping[str, Source], base: Source, devices: int = 1) -> list[Role]:
    """Return the networks of a stage, which its method names in `ROLES`, with their bytes on one device."""
    tensors = shapes(inputs["policy"].path) or shapes(base.path)
    parameters = count(tensors) if tensors else config.model.stated_parameters
    networks = [
        role
        for name in load_method(settings.name).roles
        for role in MAKE[name](Subject(config, settings, inputs, tensors, parameters, devices))
    ]
    if parameters is None:
        return networks
    samples = load_method(settings.name).generates
    return [*networks, *gathered(parameters, config.hardware, devices, samples)]


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
        extra = trained(low_rank(of.tensors, adapter.r, adapter.target_modules), hardware, of.devices, adapter=True)
        yield Role("policy", frozen(of.parameters, hardware, of.devices) + extra)


def reference(of: Subject) -> Iterator[Role]:
    """Yield the reference: a frozen copy of the policy, or the policy with its adapter off."""
    if of.config.model.adapter is None:
        yield Role("reference", None if of.parameters is None else of.parameters * bytes_each(of.config.hardware))
    else:
        yield Role("reference", 0, "the policy with its adapter off")


def value(of: Subject) -> Iterator[Role]:
    """Yield the value function: a separate network, an adapter, or a head on the policy; none without one."""
    if of.settings.value == "none":
        return
    if of.settings.value == "shared":
        yield Role("value", 0, "a head on the policy")
    elif of.settings.value == "adapter" and (adapter := of.config.model.adapter):
        parameters = low_rank(of.tensors, adapter.r, adapter.target_modules)
        states = trained(parameters, of.config.hardware, of.devices, adapter=True)
        yield Role("value", states, "an adapter on the policy")
    else:
        size = count(body(of.tensors)) if of.tensors else of.parameters
        yield Role("value", None if size is None else trained(size, of.config.hardware, of.devices))


def reward(of: Subject) -> Iterator[Role]:
    """Yield the models of the reward, in the precision of inference; a function or a server takes no memory here."""
    each = bytes_each(of.config.hardware)
    models = {name: source for name, source in of.inputs.items() if name != "policy"}
    for name, source in models.items():
        tensors = shapes(source.path)
        size = count(tensors) if tensors else of.parameters if name == "reward_model" else None
        yield Role(name.replace("_", " "), None if size is None else size * each)
    if not models:
        yield Role("reward", 0, "no model")


MAKE = {"policy": policy, "reference": reference, "value": value, "reward": reward}


def bytes_each(hardware: Hardware) -> int:
    """Return the bytes of a weight that is not trained."""
    return 2 if is_half(hardware) else 4


def is_half(hardware: Hardware) -> bool:
    """Return whether the hardware computes in bfloat16."""
    from alignlab.models.load import precision

    return precision(hardware).itemsize == 2


def in_words(networks: Sequence[Role]) -> str:
    """Describe the memory of each role and their total."""
    sizes = [role.size for role in networks]
    known = [size for size in sizes if size is not None]
    total = f" = {in_bytes(sum(known))}" if len(known) == len(sizes) > 1 else ""
    return ", ".join(map(str, networks)) + total


def in_bytes(size: float) -> str:
    """Return a size in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
