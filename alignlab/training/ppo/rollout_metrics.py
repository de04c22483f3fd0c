"""What is logged of a rollout before the policy learns from it, and the log that adds what the updates measure."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import log
from statistics import fmean

from torch import Tensor

from alignlab import losses
from alignlab.evaluation.statistics import standard_error
from alignlab.models.sampling import Completion
from alignlab.runtime import distributed
from alignlab.training.ppo.experience import Experience

FIRST_RATIO = "policy/first_ratio"  # the importance ratio farthest from 1 in the first step of a rollout
STRANGE = log(1e-4)  # the log-probability below which a token is one that the reference would hardly ever sample


class RolloutLog:
    """Collects the metrics of the current rollout, and the time and tokens of the whole training."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the current rollout; None where there is none to log
        self.measured: dict[str, float] = {}  # metrics of the current rollout before learning, by name
        self.learned: dict[str, list[float]] = defaultdict(list)  # one value a micro-batch of this process, by name
        self.learning_since = 0.0  # when learning from the current rollout began, by time.monotonic
        self.seconds: dict[str, float] = defaultdict(float)  # in each part of the loop, since training began
        self.tokens = 0  # in prompts and completions, since training began

    def begin(self, experience: Experience, metrics: dict[str, float]) -> None:
        """Start the log of a rollout that is about to be learned from."""
        self.number = experience.number
        self.measured = rollout_metrics(experience) | metrics
        self.learned.clear()
        self.tokens += sum(experience.lengths)
        self.learning_since = time.monotonic()

    def end(self) -> dict[str, float]:
        """Return the rollout's metrics; what the updates measured is averaged over micro-batches and processes.

        Of the first ratios it is the one farthest from 1.
        """
        self.seconds["update"] += time.monotonic() - self.learning_since
        self.number = None
        everyone = distributed.all_gather(dict(self.learned))
        values = {name: [value for learned in everyone for value in learned[name]] for name in self.learned}
        ratios = values.pop(FIRST_RATIO, None)
        first = {FIRST_RATIO: farthest_ratio(ratios)} if ratios else {}
        return self.measured | {name: fmean(each) for name, each in values.items()} | first

    def add(self, metrics: Mapping[str, float]) -> None:
        """Add what the update of one micro-batch measured."""
        for name, value in metrics.items():
            self.learned[name].append(value)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time that a part of the loop takes."""
        started = time.monotonic()
        yield
        self.seconds[part] += time.monotonic() - started

    def throughput(self) -> str:
        """Return the tokens a second, and the share of the time that each part of the loop took."""
        total = sum(self.seconds.values()) or 1.0
        shares = ", ".join(f"{part} {value:.1f} s ({value / total:.0%})" for part, value in self.seconds.items())
        return f"{self.tokens / total:,.0f} tokens a second; {shares}"


def farthest_ratio(ratios: Sequence[float]) -> float:
    """Return the importance ratio that is farthest from 1."""
    return max(ratios, key=lambda ratio: abs(ratio - 1))


def rollout_metrics(experience: Experience) -> dict[str, float]:
    """Return the metrics of a rollout, by name."""
    mask, measured = experience.mask, experience.measured
    log_ratio = (measured.logps - measured.reference) * mask
    return {
        "reward/mean": experience.scores.mean().item(),
        "reward/error": standard_error(experience.scores.tolist()),
        "reward/deviation": experience.scores.std(unbiased=False).item(),
        "policy/kl": log_ratio.sum(1).mean().item(),
        "policy/kl_k3": (losses.kl_estimate(measured.logps, measured.reference, "k3") * mask).sum(1).mean().item(),
        "policy/kl_exact": measured.exact_kl.sum(1).mean().item(),
        "policy/entropy": losses.masked_mean(measured.entropy, mask).item(),
        **value_metrics(experience),
        "completion/length": mask.sum(1).mean().item(),
        "completion/finished": sum(c.finished for c in experience.completions) / len(experience.completions),
        "completion/distinct": distinct(experience.completions),
        "completion/variety": variety(experience.completions),
        "completion/strange": strange(measured.reference),
    }


def value_metrics(experience: Experience) -> dict[str, float]:
    """Return the metrics of the value function, by name; empty without one."""
    if experience.returns is None:
        return {}
    values, mask = experience.measured.values, experience.mask
    return {
        "value/explained_variance": explained_variance(values, experience.returns, mask),
        "value/mean": losses.masked_mean(values, mask).item(),
    }


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Return 1 - Var(R - V) / Var(R) over real tokens: 1 for exact values, 0 for a constant."""
    real = mask.bool()
    variance = returns[real].var(unbiased=False)
    return float(1 - (returns - values)[real].var(unbiased=False) / variance) if variance > 0 else 0.0


def distinct(completions: Sequence[Completion]) -> float:
    """Return the mean share of distinct word pairs within a completion (Li et al. 2016), of those with two words."""
    shares = [len(set(pairs)) / len(pairs) for answer in completions if (pairs := word_pairs(answer))]
    return sum(shares) / len(shares) if shares else 1.0


def variety(completions: Sequence[Completion]) -> float:
    """Return the share of distinct word pairs over all completions; it falls where they become alike."""
    pairs = [pair for answer in completions for pair in word_pairs(answer)]
    return len(set(pairs)) / len(pairs) if pairs else 1.0


def word_pairs(completion: Completion) -> list[tuple[str, str]]:
    """Return the neighbouring words of a completion."""
    return list(pairwise(completion.text.split()))


def strange(reference: Tensor) -> float:
    """Return the share of completions with a strange token; reference log-probabilities are [batch, tokens]."""
    return (reference.amin(1) < STRANGE).float().mean().item()
