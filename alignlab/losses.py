"""The losses, as pure maths on tensors: no config, no device, no logger."""

import torch
import torch.nn.functional as F
from torch import Tensor


def preference(margin: Tensor, label: Tensor) -> Tensor:  # [batch]
    """-p log sigmoid(m) - (1 - p) log sigmoid(-m): cross-entropy with the probability p that the first is better.

    At m = 0 the gradient is 1/2 - p: none where the label is undecided. Label smoothing s is p = 1 - s (Mitchell 2023).
    """
    return -label * F.logsigmoid(margin) - (1 - label) * F.logsigmoid(-margin)


def reward(chosen: Tensor, rejected: Tensor, centre: float, label: Tensor | float = 1.0) -> Tensor:  # [batch]
    """`preference` of chosen - rejected, and centre * (chosen + rejected)^2, which holds the rewards' mean at zero.

    Bradley and Terry 1952; Ouyang et al. 2022, eq. 1; Eisenstein et al. 2023 (arXiv 2312.09244), eq. 2.
    """
    margin = chosen - rejected
    return preference(margin, torch.as_tensor(label, device=margin.device)) + centre * (chosen + rejected) ** 2
