"""Policy and value function as two sets of weights: each is clipped by its own norm and may have its own rate."""

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from alignlab.training.ppo.actor_critic import VALUE


def is_value_weight(name: str) -> bool:
    """Return whether a weight of an `ActorCritic` belongs to the value function: its model, adapter or head."""
    return name.startswith(("head.", "value.")) or re.search(rf"\.lora_\w+\.{VALUE}\b", name) is not None


def clip_separately(actor: nn.Module, clip: Callable[[list[Tensor], float], Any], max_norm: float) -> dict[str, float]:
    """Clip the gradients of policy and value function by a function of weights and norm; return both norms before."""
    weights: dict[str, list[Tensor]] = {"policy": [], "value": []}
    for name, weight in actor.named_parameters():
        weights["value" if is_value_weight(name) else "policy"].append(weight)
    return {part: float(clip(of_part, max_norm)) for part, of_part in weights.items() if of_part}


def set_value_learning_rate(optimizer: Any, actor: nn.Module, learning_rate: float) -> None:
    """Move the value function's weights into parameter groups with a learning rate of their own."""
    values = {id(weight) for name, weight in actor.named_parameters() if is_value_weight(name)}
    for group in list(optimizer.param_groups):
        moved = [weight for weight in group["params"] if id(weight) in values]
        if moved:
            group["params"] = [weight for weight in group["params"] if id(weight) not in values]
            optimizer.add_param_group({**group, "params": moved, "lr": learning_rate})
