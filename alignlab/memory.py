"""What memory the networks of a stage take: worked out from sizes alone, before anything is loaded.

A network that is trained in float32 takes 16 bytes a parameter: its weight, its gradient, and Adam's two moments
(Rajbhandari et al. 2020, section 3.1, count as many for mixed precision). A frozen one takes its weights. What
activations and completions take besides depends on the batch, and is not counted here.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config import Config, PretrainedModel
from alignlab.named import Source, method_module

TRAINED = 16  # bytes a parameter
FROZEN = 4
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


def roles(config: Config, settings: Any, inputs: Mapping[str, Source], base: Source) -> list[Role]:
    """The networks of a stage, which its method names in `ROLES`."""
    found = shapes(inputs["policy"].path) or shapes(base.path)
    parameters = count(found) if found else stated(config)
    return [
        role
        for name in method_module(settings.name).ROLES
        for role in MAKE[name](config, settings, inputs, found, parameters)
    ]


def stated(config: Config) -> int | None:
    """The parameters of a model that is not at hand yet, where its YAML says them."""
    return config.model.parameters if isinstance(config.model, PretrainedModel) else None


def policy(config: Config, _: Any, __: Any, found: Shapes, parameters: int | None) -> Iterator[Role]:
    """What learns: every weight, or an adapter on frozen ones."""
    adapter = config.model.adapter
    if parameters is None or adapter is None:
        yield Role("policy", None if parameters is None else parameters * TRAINED)
    else:
        extra = low_rank(found, adapter.r, adapter.target_modules)
        yield Role("policy", parameters * FROZEN + extra * TRAINED)


def reference(config: Config, _: Any, __: Any, ___: Shapes, parameters: int | None) -> Iterator[Role]:
    """What the policy is held against: a frozen copy, or the policy itself with its adapter off."""
    if config.model.adapter is None:
        yield Role("reference", None if parameters is None else parameters * FROZEN)
    else:
        yield Role("reference", 0, "the policy with its adapter off")


def value(
    _: Config, settings: Any, inputs: Mapping[str, Source], found: Shapes, parameters: int | None
) -> Iterator[Role]:
    """The value function: a network of its own, or a head on the policy's."""
    if settings.value == "shared":
        yield Role("value", 0, "a head on the policy")
    else:
        size = count(body(found)) if found else parameters
        yield Role("value", None if size is None else size * TRAINED)


def reward(
    config: Config, _: Any, inputs: Mapping[str, Source], found: Shapes, parameters: int | None
) -> Iterator[Role]:
    """The models that the reward reads, in the precision of inference; a function or a server takes nothing here."""
    each = bytes_each(config)
    judges = {name: source for name, source in inputs.items() if name != "policy"}
    for name, source in judges.items():
        own = shapes(source.path)
        size = count(own) if own else parameters if name == "reward_model" else None
        yield Role(name.replace("_", " "), None if size is None else size * each)
    if not judges:
        yield Role("reward", 0, "no model of its own")


MAKE = {"policy": policy, "reference": reference, "value": value, "reward": reward}


def bytes_each(config: Config) -> int:
    """Bytes of a weight in inference."""
    from alignlab.models import precision

    return precision(config.hardware).itemsize


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
