"""The dtypes of a stage as they are at its first optimizer step, so that no silent cast hides behind a setting."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.pytorch_utils import Conv1D

from alignlab.runtime.files import write_text
from alignlab.runtime.run_files import PRECISION, PrecisionRecord

Networks = Mapping[str, Sequence[nn.Module]]  # frozen networks by their role


class PrecisionCallback(TrainerCallback):  # type: ignore[misc]
    """Writes the `PrecisionRecord` of a stage into its folder."""

    def __init__(self, folder: Path, frozen: Networks) -> None:
        self.folder, self.frozen = folder, frozen
        self.matmuls: dict[str, Counter[str]] = {}  # multiply-adds by phase and dtype
        self.gradients: dict[int, Tensor] = {}  # by the id of the weight, empty tensors of the gradient's dtype
        self.hooks: list[Any] = []  # removed after the first step

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        for role, networks in self.frozen.items():
            for network in networks:
                self.watch(network, role)
        self.watch(model, None)
        for weight in model.parameters():
            if weight.requires_grad:
                self.hooks.append(weight.register_hook(partial(self.note_gradient, id(weight))))

    def watch(self, network: nn.Module, role: str | None) -> None:
        """Count the multiply-adds of a network's linear layers; without a role, by what it is used for."""
        for module in network.modules():
            if isinstance(module, nn.Linear | Conv1D):
                self.hooks.append(module.register_forward_hook(partial(self.note_matmul, role)))

    def note_matmul(self, role: str | None, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        matmuls = self.matmuls.setdefault(role or phase(), Counter())
        matmuls[name(output)] += output.numel() * inputs[0].shape[-1]

    def note_gradient(self, weight: int, gradient: Tensor) -> None:
        self.gradients[weight] = torch.empty(gradient.numel(), dtype=gradient.dtype, device="meta")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        for weight in model.parameters() if self.hooks else ():
            if weight.grad is not None:  # DeepSpeed has taken its gradients away, and has stepped
                self.note_gradient(id(weight), weight.grad)

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        if not self.hooks:
            return
        for hook in self.hooks:
            hook.remove()
        self.hooks.clear()
        if state.is_world_process_zero:
            write_text(self.folder / PRECISION, json.dumps(self.record(model, optimizer), indent=1))

    def record(self, model: nn.Module, optimizer: Any) -> PrecisionRecord:
        """Return the record of the step that has just been taken."""
        while hasattr(optimizer, "optimizer"):  # accelerate's and DeepSpeed's wrappers
            optimizer = optimizer.optimizer
        states = [tensor for state in optimizer.state.values() for tensor in state.values() if torch.is_tensor(tensor)]
        weights = list(model.parameters())
        return {
            "weights": elements([weight for weight in weights if weight.requires_grad]),
            "frozen": elements([weight for weight in weights if not weight.requires_grad]),
            "gradients": elements(list(self.gradients.values())),
            "master_weights": elements(list(optimizer.state)),
            "moments": elements([tensor for tensor in states if tensor.dim()]),  # without the numbers of steps
            "matmuls": {part: dict(counts) for part, counts in self.matmuls.items()},
        }


def frozen_networks(trainer: Any) -> Networks:
    """Return the frozen networks that a trainer uses beside its model: PPO's, or DPO's reference."""
    if hasattr(trainer, "frozen"):
        networks: Networks = trainer.frozen.models
        return networks
    reference = getattr(trainer, "ref_model", None)
    return {} if reference is None else {"reference": [reference]}


def phase() -> str:
    """Return what the trained model is used for, by torch's gradient mode."""
    if torch.is_grad_enabled():
        return "update"
    return "rollout" if torch.is_inference_mode_enabled() else "measuring"


def elements(tensors: Sequence[Any]) -> dict[str, int]:
    """Return the number of elements of each dtype; those of a weight that ZeRO-3 partitions are its whole."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[name(tensor)] += getattr(tensor, "ds_numel", tensor.numel())
    return dict(counts)


def name(tensor: Tensor) -> str:
    """Return the name of a tensor's dtype."""
    return str(tensor.dtype).removeprefix("torch.")
