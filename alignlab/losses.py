"""Losses and estimators as pure functions of tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor


def preference(margin: Tensor, label: Tensor) -> Tensor:  # [batch]
    """Return -p log sigmoid(m) - (1 - p) log sigmoid(-m); p is the probability that the first is better.

    At m = 0 the gradient is 1/2 - p, so a label of 1/2 has none. Label smoothing s is p = 1 - s (Mitchell 2023).
    """
    return -label * F.logsigmoid(margin) - (1 - label) * F.logsigmoid(-margin)


def hinge(margin: Tensor) -> Tensor:  # [batch]
    """Return max(0, 1 - margin) (Zhao et al. 2023, SLiC)."""
    return F.relu(1 - margin)


def ipo(margin: Tensor, beta: float) -> Tensor:  # [batch]
    """Return (margin - 1 / (2 beta))^2; the margin is the difference of mean log-ratios a token (Azar et al. 2024)."""
    return (margin - 1 / (2 * beta)).square()


def kto(log_ratio: Tensor, desirable: Tensor, kl: float | Tensor, beta: float) -> Tensor:  # [batch]
    """Return 1 - sigmoid(beta * (r - kl)) of good completions and 1 - sigmoid(beta * (kl - r)) of bad ones.

    r is the log-ratio of policy and reference, [batch]; the KL term has no gradient (Ethayarajh et al. 2024, eq. 8).
    """
    gain = beta * (log_ratio - kl)
    return torch.sigmoid(torch.where(desirable, -gain, gain))


def reward(chosen: Tensor, rejected: Tensor, centre: float, label: Tensor | float = 1.0) -> Tensor:  # [batch]
    """Return `preference` of chosen - rejected, plus centre * (chosen + rejected)^2, which centres rewards at zero.

    Bradley and Terry 1952; Ouyang et al. 2022, eq. 1; Eisenstein et al. 2023 (arXiv 2312.09244), eq. 2.
    """
    margin = chosen - rejected
    return preference(margin, torch.as_tensor(label, device=margin.device)) + centre * (chosen + rejected) ** 2


def language(logits: Tensor, labels: Tensor, count: Tensor | int | None = None) -> Tensor:  # []
    """Return the mean negative log-likelihood of the labels other than -100; logits [batch, length, vocabulary].

    `count` is the number of tokens to divide by if the rows are a micro-batch. Logits and labels have the same
    positions: the decoder of an encoder-decoder is shifted already.
    """
    summed = F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="sum")
    return summed / ((labels != -100).sum() if count is None else count)


def kl_estimate(logps: Tensor, reference: Tensor, kind: str) -> Tensor:  # same shape
    """Return an estimate of KL(policy, reference) from each token (Schulman 2020, "Approximating KL divergence").

    k1 is the log-ratio: unbiased, may be negative. k2 is half its square: biased, never negative. k3 is r - 1 - log r
    with r = reference / policy: unbiased and never negative.
    """
    log_ratio = logps - reference
    if kind == "k1":
        return log_ratio
    if kind == "k2":
        return log_ratio.square() / 2
    return torch.expm1(-log_ratio) + log_ratio


def kl_of(p: Tensor, q: Tensor) -> Tensor:  # [...]
    """Return KL(p, q) over the last axis by log-probabilities; a token that p rules out (-inf) adds nothing."""
    return torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum(-1)


def entropy_of(logps: Tensor) -> Tensor:  # [...]
    """Return the entropy over the last axis by log-probabilities, in nats; a masked token (-inf) adds nothing."""
    return -(logps.exp() * logps.masked_fill(logps == -torch.inf, 0.0)).sum(-1)  # 0 * inf has no gradient


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:  # []
    """Return the mean over real tokens; mask is 1 where a token is real."""
    return (values * mask).sum() / mask.sum()


def whiten(values: Tensor, mask: Tensor) -> Tensor:  # same shape
    """Return values with mean 0 and standard deviation 1 over real tokens; the others are 0."""
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean).square(), mask)
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:  # [batch, tokens]
    """Return -kl_coef * kl at every real token, plus the score at the last one (Ziegler et al. 2019, eq. 2).

    scores [batch]; kl and mask [batch, tokens], real tokens first.
    """
    rewards = -kl_coef * kl * mask
    last = mask.sum(1).long() - 1
    rewards[torch.arange(len(rewards), device=rewards.device), last] += scores
    return rewards


def advantages(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:  # [batch, tokens]
    """Return generalised advantage estimates (Schulman et al. 2016, eq. 16); the value after the last token is 0.

    A_t = sum_k (gamma lam)^k (r_{t+k} + gamma V_{t+k+1} - V_{t+k}); all [batch, tokens], real tokens first.
    """
    estimates = torch.zeros_like(rewards)
    advantage = next_value = rewards.new_zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = (delta + gamma * lam * advantage) * mask[:, t]
        next_value = values[:, t] * mask[:, t]
        estimates[:, t] = advantage
    return estimates


def group_advantages(rewards: Tensor, group_size: int, scale: bool = True) -> Tensor:  # [batch]
    """Return (r - mean) / (deviation + 1e-4) within each group of neighbouring completions (Shao et al. 2024, GRPO).

    rewards [batch]. A group of equal rewards gives exactly 0. Without `scale` nothing is divided (Liu et al. 2025).
    """
    groups = rewards.view(-1, group_size)
    shifted = groups - groups[:, :1]  # exactly 0 where all are equal
    centred = shifted - shifted.mean(1, keepdim=True)
    return (centred / (centred.std(1, keepdim=True) + 1e-4) if scale else centred).flatten()


def leave_one_out_advantages(rewards: Tensor, group_size: int) -> Tensor:  # [batch]
    """Return each reward less the mean reward of the others in its group (Ahmadian et al. 2024, RLOO).

    rewards [batch]. It is group_size / (group_size - 1) times the reward less the mean of the whole group.
    """
    return group_advantages(rewards, group_size, scale=False) * group_size / (group_size - 1)


def truncated_importance(logps: Tensor, sampler: Tensor, cap: float) -> Tensor:  # same shape
    """Return min(exp(logps - sampler), cap): the weight of a token that another policy has sampled.

    Truncation bounds the variance for a bias (Espeholt et al. 2018, eq. 1; for rollout engines, Yao et al. 2025).
    """
    return (logps - sampler).exp().clamp(max=cap)


def clipped_policy(logps: Tensor, old: Tensor, advantage: Tensor, clip: float) -> Tensor:  # same shape
    """Return -min(r A, clip(r, 1 - clip, 1 + clip) A) with r = exp(logps - old) (Schulman et al. 2017, eq. 7)."""
    ratio = (logps - old).exp()
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))


def clipped_value(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:  # same shape
    """Return max((V - R)^2, (clip(V, old - clip, old + clip) - R)^2) / 2 (Schulman et al. 2017; OpenAI baselines)."""
    clipped = old + (values - old).clamp(-clip, clip)
    return torch.maximum((values - returns).square(), (clipped - returns).square()) / 2
