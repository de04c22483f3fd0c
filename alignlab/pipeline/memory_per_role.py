"""What memory the networks of a stage take: worked out from sizes alone, before anything is loaded.

A network that is trained takes 16 bytes a parameter: in float32 its weight, its gradient and Adam's two moments, four
each; under DeepSpeed in bfloat16 two for the weight, two for the gradient, and twelve for the optimizer, which keeps a
float32 copy of the weight (Rajbhandari et al. 2020, section 3.1). ZeRO-2 shares out gradients and optimizer over the
devices, ZeRO-3 and FSDP the weights as well (figure 1 there); DDP keeps its gradients twice, the second time in the
buckets that it exchanges. A frozen network takes its weights, whole on each device.
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

FROZEN = 4  # bytes a parameter
HEADS = ("lm_head.", "score.", "embed_out.")
EMBEDDINGS = ("embed", "wte", "wpe", "shared")


class Role(NamedTuple):
    """A network of a stage: what it is for, and the bytes that it takes; None where that is unknown."""

    name: str
    size: int | None
    why: str = ""  # it takes none

    def __str__(self) -> str:
        if self.size is None:
            return f"{self.name} unknown"
        return f"{self.name} {in_bytes(self.size)}" + (f" ({self.why})" if self.why else "")


Shapes = Mapping[str, Sequence[int]]


def shapes(folder: Path) -> Shapes:
    """The shapes of the tensors in a model's folder, by name, from the heads of its files; empty where there are none.

    A safetensors file begins with the length of its JSON head in 8 bytes (little-endian).
    """
    found: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            head = json.loads(stream.read(size))
        found |= {name: entry["shape"] for name, entry in head.items() if name != "__metadata__"}
    return found


def count(found: Shapes) -> int:
    """All parameters."""
    return sum(prod(shape) for shape in found.values())


def body(found: Shapes) -> Shapes:
    """A model less its head."""
    return {name: shape for name, shape in found.items() if not name.startswith(HEADS)}


def low_rank(found: Shapes, rank: int, targets: str | Sequence[str]) -> int:
    """The parameters of a LoRA adapter (Hu et al. 2021): rank × (in + out) for every linear layer that gets one."""
    total = 0
    for name, shape in found.items():
        layer = name.removesuffix(".weight")
        linear = len(shape) == 2 and not name.startswith(HEADS) and not any(word in name for word in EMBEDDINGS)
        wanted = targets == "all-linear" or layer.rpartition(".")[2] in targets
        total += rank * sum(shape) if linear and wanted and layer != name else 0
    return total


class Part(NamedTuple):
    """Bytes a parameter of a network that is trained: its weight, its gradient, and what the optimizer keeps."""

    weight: int
    gradient: int
    optimizer: int


def trained(parameters: int, hardware: Hardware, devices: int) -> int:
    """What a network that is trained takes of one device."""
    part = Part(2, 2, 12) if is_half(hardware) and hardware.deepspeed else Part(4, 4, 8)
    zero = hardware.deepspeed.zero_optimization if hardware.deepspeed else None
    strategy = hardware.strategy_record
    shards = (strategy.shards_weights, strategy.shards_gradients, strategy.shards_optimizer)
    shared = sum(size for size, is_sharded in zip(part, shards, strict=True) if is_sharded)
    whole = sum(part) - shared
    if strategy.gradient_buckets and devices > 1:
        whole += part.gradient
    if strategy.deepspeed_stage and not strategy.shards_weights and not is_half(hardware):
        shared += 4  # ZeRO-1 and ZeRO-2 copy the share of the weights that their optimizer changes, in any precision
    if zero and zero.offload_param and zero.offload_param.device != "none":
        shared -= part.weight
    if zero and zero.offload_optimizer and zero.offload_optimizer.device != "none":
        shared -= part.gradient + part.optimizer
    return parameters * whole + -(-parameters * shared // devices)


def held(parameters: int, hardware: Hardware, devices: int) -> int:
    """What the frozen weights under an adapter take of one device."""
    each = 2 if is_half(hardware) and hardware.deepspeed else FROZEN
    return -(-parameters * each // devices) if hardware.strategy_record.shards_weights else parameters * each


def gathered(parameters: int, hardware: Hardware, devices: int, answers: bool) -> Iterator[Role]:
    """The weights that a device of ZeRO-3 holds whole at a time: all of them where the policy answers prompts."""
    zero = hardware.deepspeed.zero_optimization if hardware.deepspeed else None
    if zero is None or not hardware.strategy_record.shards_weights or devices == 1:
        return
    most = zero.stage3_max_live_parameters
    whole = min(parameters, most) if isinstance(most, int) and not answers else parameters
    yield Role("layers at hand", whole * (2 if is_half(hardware) else 4))


def roles(config: Config, settings: Any, inputs: Mapping[str, Source], base: Source, devices: int = 1) -> list[Role]:
    """The networks of a stage, which its method names in `ROLES`, and what they take of one of so many devices."""
    found = shapes(inputs["policy"].path) or shapes(base.path)
    parameters = count(found) if found else config.model.stated_parameters
    made = [
        role
        for name in load_method(settings.name).roles
        for role in MAKE[name](Subject(config, settings, inputs, found, parameters, devices))
    ]
    answers = load_method(settings.name).generates
    return made if parameters is None else [*made, *gathered(parameters, config.hardware, devices, answers)]


class Subject(NamedTuple):
    """What a role's memory depends on."""

    config: Config
    settings: Any
    inputs: Mapping[str, Source]
    found: Shapes
    parameters: int | None
    devices: int


def policy(of: Subject) -> Iterator[Role]:
    """What learns: every weight, or an adapter on frozen ones."""
    adapter, hardware = of.config.model.adapter, of.config.hardware
    if of.parameters is None:
        yield Role("policy", None)
    elif adapter is None:
        yield Role("policy", trained(of.parameters, hardware, of.devices))
    else:
        extra = trained(low_rank(of.found, adapter.r, adapter.target_modules), hardware, of.devices)
        yield Role("policy", held(of.parameters, hardware, of.devices) + extra)


def reference(of: Subject) -> Iterator[Role]:
    """What the policy is held against: a frozen copy, or the policy itself with its adapter off."""
    if of.config.model.adapter is None:
        yield Role("reference", None if of.parameters is None else of.parameters * FROZEN)
    else:
        yield Role("reference", 0, "the policy with its adapter off")


def value(of: Subject) -> Iterator[Role]:
    """The value function: a network or an adapter of its own, or a head on the policy's."""
    if of.settings.value == "shared":
        yield Role("value", 0, "a head on the policy")
    elif of.settings.value == "adapter" and (adapter := of.config.model.adapter):
        own = low_rank(of.found, adapter.r, adapter.target_modules)
        yield Role("value", trained(own, of.config.hardware, of.devices), "an adapter on the policy")
    else:
        size = count(body(of.found)) if of.found else of.parameters
        yield Role("value", None if size is None else trained(size, of.config.hardware, of.devices))


def reward(of: Subject) -> Iterator[Role]:
    """The models that the reward reads, in the precision of inference; a function or a server takes nothing here."""
    each = bytes_each(of.config)
    judges = {name: source for name, source in of.inputs.items() if name != "policy"}
    for name, source in judges.items():
        own = shapes(source.path)
        size = count(own) if own else of.parameters if name == "reward_model" else None
        yield Role(name.replace("_", " "), None if size is None else size * each)
    if not judges:
        yield Role("reward", 0, "no model of its own")


MAKE = {"policy": policy, "reference": reference, "value": value, "reward": reward}


def bytes_each(config: Config) -> int:
    """Bytes of a weight in inference."""
    return 2 if is_half(config.hardware) else 4


def is_half(hardware: Hardware) -> bool:
    """Whether it is computed in bfloat16."""
    from alignlab.models.load import precision

    return precision(hardware).itemsize == 2


def in_words(found: Sequence[Role]) -> str:
    """What each role takes, and all of them together."""
    sizes = [role.size for role in found]
    known = [size for size in sizes if size is not None]
    whole = f" = {in_bytes(sum(known))}" if len(known) == len(sizes) > 1 else ""
    return ", ".join(map(str, found)) + whole


def in_bytes(size: float) -> str:
    """A size in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
