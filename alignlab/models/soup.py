"""Interpolate the weights of two models that were trained from the same one (rewarded soups, Ramé et al. 2023).

A run with LoRA saves its adapter merged into its model: two of them with one base interpolate their updates exactly.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.errors import failure

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = "*.safetensors"


def interpolate(first: "Tensor", second: "Tensor", weight: float) -> "Tensor":
    """Return (1 - weight) * first + weight * second, computed in float32; weights 0 and 1 return a tensor as it is."""
    if weight in (0.0, 1.0) or not first.is_floating_point():
        return second if weight == 1.0 else first
    return ((1 - weight) * first.float() + weight * second.float()).to(first.dtype)


def write_interpolated(first: Path, second: Path, weight: float, target: Path) -> None:
    """Write a folder like that of the first model, with interpolated weights.

    Raises a `Failure` where the models do not have the same tensors.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    shutil.copytree(first, target, ignore=shutil.ignore_patterns(WEIGHTS), dirs_exist_ok=True)
    others = tensors_of(second)
    if tensors_of(first).keys() != others.keys():
        raise different(first, second, "they have tensors of different names")
    for file in sorted(first.glob(WEIGHTS)):
        with safe_open(file, framework="pt") as stored:
            mixed = {name: mix(name, stored, others, weight, first, second) for name in stored.keys()}
            save_file(mixed, target / file.name, metadata=stored.metadata() or {"format": "pt"})


def mix(name: str, stored: Any, others: Mapping[str, Path], weight: float, first: Path, second: Path) -> "Tensor":
    """Return one interpolated tensor."""
    from safetensors import safe_open

    with safe_open(others[name], framework="pt") as other:
        one, two = stored.get_tensor(name), other.get_tensor(name)
    if one.shape != two.shape or one.dtype != two.dtype:
        raise different(first, second, f"{name} has another shape or type")
    return interpolate(one, two, weight)


def tensors_of(folder: Path) -> dict[str, Path]:
    """Return the file of each tensor; raises a `Failure` for a folder without safetensors."""
    from safetensors import safe_open

    files: dict[str, Path] = {}
    for file in sorted(folder.glob(WEIGHTS)):
        with safe_open(file, framework="pt") as stored:
            files |= dict.fromkeys(stored.keys(), file)
    if not files:
        raise failure(str(folder), "has no weights in safetensors", "save the model again with transformers")
    return files


def different(first: Path, second: Path, why: str) -> Exception:
    """Build the failure of two models that cannot be interpolated."""
    return failure(str(second), f"does not match {first}: {why}", "give two models that were trained from the same one")
