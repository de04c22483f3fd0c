"""From scores to advantages: what PPO learns from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from alignlab import losses
from alignlab.models.sampling import Completion
from alignlab.rewards.running_stats import RunningStats


class AdvantageOptions(NamedTuple):
    """How scores become advantages.

    kind: gae reads a value function; group and rloo compare the completions of one prompt
    group_size: neighbouring completions that have the same prompt
    scale_groups: group divides by the group's standard deviation
    kl_in: reward subtracts the KL penalty from what is maximised; loss adds it to the loss
    """

    kl_estimator: str
    gamma: float
    lam: float
    kind: str = "gae"
    group_size: int = 1
    scale_groups: bool = True
    kl_in: str = "reward"


class Measured(NamedTuple):
    """What the networks computed for completions when they were sampled, all [batch, tokens]; 0 at padding."""

    logps: Tensor
    reference: Tensor
    values: Tensor
    entropy: Tensor
    exact_kl: Tensor


@dataclass(frozen=True)
class Experience:
    """One rollout: prompts as token ids, completions, and tensors [batch, tokens]; scores are [batch].

    returns: what the value function learns; None without one
    loss_kl_coef: the weight of the KL penalty in the loss; 0 where the penalty is in the reward
    """

    number: int
    prompts: list[list[int]]
    completions: list[Completion]
    scores: Tensor
    mask: Tensor
    measured: Measured
    kl: Tensor
    advantages: Tensor
    returns: Tensor | None
    loss_kl_coef: float = 0.0

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
    loss_kl_coef, reward_kl_coef = (kl_coef, 0.0) if options.kl_in == "loss" else (0.0, kl_coef)
    returns: Tensor | None = None
    if options.kind == "gae":
        rewards = losses.token_rewards(shaped, kl, mask, reward_kl_coef)
        estimates = losses.advantages(rewards, measured.values, mask, options.gamma, options.lam)
        advantages, returns = losses.whiten(estimates, mask), (estimates + measured.values) * mask
    else:
        advantages = compare_in_groups(shaped - reward_kl_coef * kl.sum(1), options)[:, None] * mask
    return Experience(
        number, prompts, completions, scores, mask, measured, kl, advantages, returns, loss_kl_coef
    )  # fmt: skip


def compare_in_groups(rewards: Tensor, options: AdvantageOptions) -> Tensor:  # [batch]
    """Return the advantage of each completion over the others that have its prompt; rewards are [batch]."""
    if options.kind == "rloo":
        return losses.leave_one_out_advantages(rewards, options.group_size)
    return losses.group_advantages(rewards, options.group_size, options.scale_groups)


def score_scale(scores: Tensor, stats: RunningStats, score_range: tuple[float, float] | None) -> tuple[float, float]:
    """Return what is subtracted from scores, and what they are divided by.

    A reward of known range is mapped to [-1, 1]. For others `scores`, [batch], first update the running statistics.
    """
    if score_range is not None:
        low, high = score_range
        return (low + high) / 2, (high - low) / 2
    stats.update(scores.tolist())
    return stats.mean, stats.scale


def shape_scores(scores: Tensor, finished: Sequence[bool], scale: tuple[float, float] | None, penalty: float) -> Tensor:
    """Return what is maximised, [batch]: standardised scores, less a penalty for each unfinished completion."""
    mean, deviation = scale or (0.0, 1.0)
    return (scores - mean) / deviation - penalty * (1 - torch.tensor(finished, dtype=scores.dtype))
