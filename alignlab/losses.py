"""The losses, as pure maths on tensors: no config, no device, no logger."""

import torch.nn.functional as F
from torch import Tensor


def reward(chosen: Tensor, rejected: Tensor, centre: float) -> Tensor:  # [batch]
    """-log sigmoid(chosen - rejected), and centre * (chosen + rejected)^2, which holds the rewards' mean at zero.

    Bradley and Terry 1952; Ouyang et al. 2022, eq. 1; Eisenstein et al. 2023 (arXiv 2312.09244), eq. 2.
    """
    return -F.logsigmoid(chosen - rejected) + centre * (chosen + rejected) ** 2


def language(logits: Tensor, labels: Tensor, count: Tensor | int | None = None) -> Tensor:  # []
    """The mean negative log-likelihood of the labels that are not -100; logits [batch, length, vocabulary].

    `count` is the number of tokens to divide by where the rows are a piece of a larger batch; a logit belongs to
    the label at its own place (the decoder of an encoder-decoder is shifted already).
    """
    summed = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")
    return summed / ((labels != -100).sum() if count is None else count)
