"""Master weights: float32 copies on which the optimizer steps, where a model's own weights are in bfloat16.

A step of the usual size is lost when it is added to a weight of 8 bits (Micikevicius et al. 2018, section 3.1). The
optimizer therefore steps on copies in float32 and rounds them into the model's weights. Gradients are accumulated over
micro-batches in float32 too, except under DDP, which reduces them in the dtype of the weights.

Autocast would keep weights in float32 and cast them in each call instead. It is not used: it casts frozen weights again
at every call; keys and values get different dtypes in a cache; and transformers' `compute_loss_context_manager` does
nothing any more, so that PPO would sample and measure in float32 and update in bfloat16, with importance ratios far
from 1. DeepSpeed and FSDP2 keep master weights themselves. torch's and transformers' optimizers keep none.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from alignlab.runtime import distributed

STATE = "master_weights"  # the key of the master weights in the optimizer's state


class MasterWeights:
    """A trainer whose optimizer steps on master weights, where the trained weights are not in float32."""

    def create_optimizer(self: Any, *args: Any) -> Optimizer:
        optimizer: Optimizer = super().create_optimizer(*args)  # type: ignore[misc]
        if not self.is_deepspeed_enabled:
            keep_master_weights(optimizer)
        return optimizer


def keep_master_weights(optimizer: Optimizer) -> list[tuple[Tensor, Tensor]]:
    """Let an optimizer step on float32 copies of the weights that are not in float32; return weights and copies.

    The copies are part of the optimizer's state, so that a resumed run continues exactly.
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    for group in optimizer.param_groups:
        for index, weight in enumerate(group["params"]):
            if weight.dtype != torch.float32:
                group["params"][index] = weight.detach().float()
                pairs.append((weight, group["params"][index]))
                accumulate_in_float32(weight)
    if not pairs:
        return pairs

    def read_gradients(*_: Any) -> None:
        for weight, master in pairs:
            master.grad = None if weight.grad is None else weight.grad.float()

    def write_weights(*_: Any) -> None:
        for weight, master in pairs:
            weight.data.copy_(master)
            master.grad = None

    def save(_: Optimizer, state: dict[str, Any]) -> None:
        state[STATE] = [master for _, master in pairs]

    def load(_: Optimizer, state: dict[str, Any]) -> None:
        for (_weight, master), saved in zip(pairs, state.pop(STATE), strict=True):
            master.copy_(saved)

    optimizer.register_step_pre_hook(read_gradients)
    optimizer.register_step_post_hook(write_weights)
    optimizer.register_state_dict_post_hook(save)
    optimizer.register_load_state_dict_pre_hook(load)
    return pairs


def accumulate_in_float32(weight: Any) -> None:
    """Let autograd accumulate a weight's gradient in float32; DDP and versions of torch before 2.10 cannot."""
    if distributed.world_size() == 1 and hasattr(weight, "grad_dtype"):
        weight.grad_dtype = torch.float32
