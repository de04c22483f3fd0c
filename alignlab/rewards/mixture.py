"""Several rewards made into one: an ensemble of one sort, or a weighted mixture of different ones.

An ensemble asks rewards that should agree, and how far they do not is a sign of a policy that has left the ground on
which they were trained (Coste et al. 2024). A mixture adds up rewards of different scales. What each part said of the
last completions is kept in `terms`, for curves, tables and monitors.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from alignlab.chat import Turn
from alignlab.config.reward import EnsembleReward, MixtureReward
from alignlab.rewards.protocol import Checked
from alignlab.rewards.running_stats import Running

SPREAD = "spread"  # the term that tells how far an ensemble's members disagree


class Ensemble:
    """Members that judge the same thing."""

    def __init__(self, name: str, settings: EnsembleReward, members: Mapping[str, Checked]) -> None:
        self.name = name
        self.settings = settings
        self.members = members
        self.terms: dict[str, list[float]] = {}

    def score(
        self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]
    ) -> list[float]:
        """Ask every member, and combine what they say of each completion."""
        said = {name: member.score(prompts, completions, finished) for name, member in self.members.items()}
        each = list(zip(*said.values(), strict=True))
        self.terms = {**said, SPREAD: [pstdev(scores) for scores in each]}
        return [combined(scores, self.settings) for scores in each]


def combined(scores: Sequence[float], settings: EnsembleReward) -> float:
    """One score of several: their mean, the least of them, or the mean less a multiple of their deviation."""
    if settings.combine == "minimum":
        return min(scores)
    if settings.combine == "mean":
        return fmean(scores)
    return fmean(scores) - settings.spread_coef * pstdev(scores)


class Mixture:
    """A weighted sum; running means are taken over every completion that was scored, this call's among them."""

    def __init__(self, name: str, settings: MixtureReward, parts: Mapping[str, Checked]) -> None:
        self.name = name
        self.settings = settings
        self.parts = parts
        self.running = {part: Running() for part, own in settings.parts.items() if own.normalize}
        self.total = Running()
        self.terms: dict[str, list[float]] = {}

    def score(
        self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]
    ) -> list[float]:
        """Score by every part, add up, normalise, clip, and take off the penalties last, so that they always bite."""
        self.terms = {}
        sums = [0.0] * len(completions)
        for name, part in self.parts.items():
            scores = part.score(prompts, completions, finished)
            self.terms |= {name: scores} | {f"{name}/{term}": values for term, values in part.terms.items()}
            weighted = self.weighted(name, scores)
            sums = [total + value for total, value in zip(sums, weighted, strict=True)]
        if self.settings.normalize:
            self.total.update(sums)
            sums = self.total.normalized(sums)
        clip = self.settings.clip
        kept = sums if clip is None else [max(-clip, min(clip, value)) for value in sums]
        off = [self.penalty(text, end) for text, end in zip(completions, finished, strict=True)]
        return [value - less for value, less in zip(kept, off, strict=True)]

    def weighted(self, name: str, scores: list[float]) -> list[float]:
        """What a part adds to the sum."""
        if name in self.running:
            self.running[name].update(scores)
            scores = self.running[name].normalized(scores)
        weight = self.settings.parts[name].weight
        return [weight * value for value in scores]

    def penalty(self, text: str, finished: bool) -> float:
        """What is taken off: something for each word, and something where there is no end."""
        return self.settings.length_penalty * len(text.split()) + self.settings.missing_eos_penalty * (not finished)

    def state_dict(self) -> dict[str, Any]:
        """The running means."""
        return {"total": self.total.state_dict(), **{name: own.state_dict() for name, own in self.parts_seen()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.total.load_state_dict(state["total"])
        for name, own in self.parts_seen():
            own.load_state_dict(state[name])

    def parts_seen(self) -> list[tuple[str, Running]]:
        """The parts that are normalised, under the names that a state gives them."""
        return [(f"part {name}", own) for name, own in self.running.items()]
