"""What a policy has tried: completions, what they were worth, and what each token contributed."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import log
from typing import NamedTuple

import torch
from torch import Tensor

from alignlab import losses
from alignlab.models.sampling import Completion
from alignlab.training.gates import standard_error


class Settings(NamedTuple):
    """How scores become advantages."""

    kl_estimator: str
    gamma: float
    lam: float


class Measured(NamedTuple):
    """What the networks said of completions when they were drawn, all [batch, tokens]; 0 at padding."""

    logps: Tensor
    reference: Tensor
    values: Tensor
    entropy: Tensor
    exact_kl: Tensor


class Experience(NamedTuple):
    """One rollout: rows of ids with their texts, and tensors [batch, tokens]; scores are [batch]."""

    number: int
    prompts: list[list[int]]
    completions: list[Completion]
    scores: Tensor
    mask: Tensor
    measured: Measured
    kl: Tensor
    advantages: Tensor
    returns: Tensor


def experience(
    number: int,
    prompts: list[list[int]],
    completions: list[Completion],
    scores: Tensor,
    shaped: Tensor,
    measured: Measured,
    kl_coef: float,
    settings: Settings,
) -> Experience:
    """Work out advantages and returns; scores are the reward's own, `shaped` is what is maximised, both [batch]."""
    sizes = torch.tensor([len(completion.tokens) for completion in completions])
    mask = (torch.arange(measured.logps.shape[1]) < sizes[:, None]).float()
    kl = losses.kl_estimate(measured.logps, measured.reference, settings.kl_estimator) * mask
    rewards = losses.token_rewards(shaped, kl, mask, kl_coef)
    advantages = losses.advantages(rewards, measured.values, mask, settings.gamma, settings.lam)
    return Experience(
        number, prompts, completions, scores, mask, measured, kl,
        losses.whiten(advantages, mask), (advantages + measured.values) * mask,
    )  # fmt: skip


def scale_of(scores: Tensor) -> tuple[float, float]:
    """The mean and the deviation of scores, which is not zero."""
    return scores.mean().item(), max(scores.std(unbiased=False).item(), 1e-6)


def shape(scores: Tensor, finished: Sequence[bool], scale: tuple[float, float] | None, penalty: float) -> Tensor:
    """What is maximised, [batch]: scores on a scale, if there is one, less a penalty for having no end."""
    mean, deviation = scale or (0.0, 1.0)
    return (scores - mean) / deviation - penalty * (1 - torch.tensor(finished, dtype=scores.dtype))


def places(total: int, size: int, number: int, seed: int) -> list[int]:
    """The prompts of a rollout: the next `size` of an endless list that passes over all, each time by lot."""
    found: list[int] = []
    start = number * size
    while len(found) < size:
        turn, offset = divmod(start + len(found), total)
        order = torch.randperm(total, generator=torch.Generator().manual_seed(mixed(seed, turn, 7))).tolist()
        found += order[offset : offset + size - len(found)]
    return found


def minibatches(
    size: int, count: int, pieces: int, lengths: Sequence[int], seed: Sequence[int]
) -> list[list[list[int]]]:
    """Cut rows by lot into `count` minibatches, each in `pieces` pieces of rows of like length."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(mixed(*seed))).tolist()
    found = []
    for part in cut(order, count):
        found.append(list(cut(sorted(part, key=lambda row: (lengths[row], row)), pieces)))
    return found


def cut(rows: list[int], count: int) -> Iterator[list[int]]:
    """Cut a list into `count` parts whose sizes differ by one at most."""
    size, more = divmod(len(rows), count)
    start = 0
    for number in range(count):
        end = start + size + (number < more)
        yield rows[start:end]
        start = end


def mixed(*numbers: int) -> int:
    """One seed from several numbers, below 2^63; different numbers give different seeds."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (2**63 - 25)
    return seed


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(R - V) / Var(R) over real tokens: 1 is a value function that knows, 0 one that knows the mean alone."""
    real = mask.bool()
    known = returns[real].var(unbiased=False)
    return float(1 - (returns - values)[real].var(unbiased=False) / known) if known > 0 else 0.0


def distinct(completions: Sequence[Completion]) -> float:
    """The share of distinct word pairs within an answer (Li et al. 2016), over answers of two or more words."""
    shares = [len(set(pairs)) / len(pairs) for one in completions if (pairs := word_pairs(one))]
    return sum(shares) / len(shares) if shares else 1.0


def variety(completions: Sequence[Completion]) -> float:
    """The share of distinct word pairs among those of all answers: it falls where the answers become one."""
    pairs = [pair for one in completions for pair in word_pairs(one)]
    return len(set(pairs)) / len(pairs) if pairs else 1.0


def word_pairs(completion: Completion) -> list[tuple[str, str]]:
    """The neighbouring words of an answer."""
    return list(pairwise(completion.text.split()))


STRANGE = log(1e-4)  # the log-probability below which the reference would hardly ever have said a token


def strange(reference: Tensor) -> float:
    """The share of answers with a token that is strange to the reference; its log-probabilities, [batch, tokens]."""
    return (reference.amin(1) < STRANGE).float().mean().item()


def worth(experience: Experience) -> dict[str, float]:
    """What is logged of a rollout, by name."""
    mask, measured = experience.mask, experience.measured
    rows = mask.sum(1)
    log_ratio = (measured.logps - measured.reference) * mask
    return {
        "reward/mean": experience.scores.mean().item(),
        "reward/error": standard_error(experience.scores.tolist()),
        "reward/deviation": experience.scores.std(unbiased=False).item(),
        "policy/kl": log_ratio.sum(1).mean().item(),
        "policy/kl_k3": (losses.kl_estimate(measured.logps, measured.reference, "k3") * mask).sum(1).mean().item(),
        "policy/kl_exact": measured.exact_kl.sum(1).mean().item(),
        "policy/entropy": losses.masked_mean(measured.entropy, mask).item(),
        "value/explained_variance": explained_variance(measured.values, experience.returns, mask),
        "value/mean": losses.masked_mean(measured.values, mask).item(),
        "completion/length": rows.mean().item(),
        "completion/finished": sum(c.finished for c in experience.completions) / len(experience.completions),
        "completion/distinct": distinct(experience.completions),
        "completion/variety": variety(experience.completions),
        "completion/strange": strange(measured.reference),
    }
