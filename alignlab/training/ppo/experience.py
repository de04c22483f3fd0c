"""From scores to advantages: what PPO learns from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from alignlab import losses
from alignlab.models.sampling import Completion


class AdvantageOptions(NamedTuple):
    """How scores become advantages: the KL estimator (k1, k2, k3), and GAE's gamma and lambda."""

    kl_estimator: str
    gamma: float
    lam: float


class Measured(NamedTuple):
    """What the networks computed for completions when they were sampled, all [batch, tokens]; 0 at padding."""

    logps: Tensor
    reference: Tensor
    values: Tensor
    entropy: Tensor
    exact_kl: Tensor


@dataclass(frozen=True)
class Experience:
    """One rollout: prompts as token ids, completions, and tensors [batch, tokens]; scores are [batch]."""

    number: int
    prompts: list[list[int]]
    completions: list[Completion]
    scores: Tensor
    mask: Tensor
    measured: Measured
    kl: Tensor
    advantages: Tensor
    returns: Tensor

    @property
    def lengths(self) -> list[int]:
        """Return the number of tokens of each row, prompt and completion."""
        return [len(ids) + len(answer.tokens) for ids, answer in zip(self.prompts, self.completions, strict=True)]


def build_experience(
    number: int,
    prompts: list[list[int]],
    completions: list[Completion],
    scores: Tensor,
    shaped: Tensor,
    measured: Measured,
    kl_coef: float,
    options: AdvantageOptions,
) -> Experience:
    """Compute advantages and returns from the reward's `scores` and what is maximised, `shaped`, both [batch]."""
    sizes = torch.tensor([len(completion.tokens) for completion in completions])
    mask = (torch.arange(measured.logps.shape[1]) < sizes[:, None]).float()
    kl = losses.kl_estimate(measured.logps, measured.reference, options.kl_estimator) * mask
    rewards = losses.token_rewards(shaped, kl, mask, kl_coef)
    advantages = losses.advantages(rewards, measured.values, mask, options.gamma, options.lam)
    return Experience(
        number, prompts, completions, scores, mask, measured, kl,
        losses.whiten(advantages, mask), (advantages + measured.values) * mask,
    )  # fmt: skip


def scale_of(scores: Tensor) -> tuple[float, float]:
    """Return the mean and the standard deviation of scores; the deviation is at least 1e-6."""
    return scores.mean().item(), max(scores.std(unbiased=False).item(), 1e-6)


def shape_scores(scores: Tensor, finished: Sequence[bool], scale: tuple[float, float] | None, penalty: float) -> Tensor:
    """Return what is maximised, [batch]: standardised scores, less a penalty for each unfinished completion."""
    mean, deviation = scale or (0.0, 1.0)
    return (scores - mean) / deviation - penalty * (1 - torch.tensor(finished, dtype=scores.dtype))
