"""A weighted sum of different rewards, with penalties.

total = clip(normalize(sum of weight * part)) - missing_eos_penalty - length_penalty. The record's `terms` hold what
each part, the normalisation, the clipping and each penalty add to the total; its `parts` hold the unweighted scores.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.chat import Turn
from alignlab.config.reward import MixtureReward
from alignlab.rewards import load as load_part
from alignlab.rewards.protocol import Checked, Context, Scored
from alignlab.rewards.running_stats import RunningStats


class Mixture:
    """A weighted sum; running means are taken over every completion that was scored, this call's among them."""

    def __init__(self, name: str, settings: MixtureReward, parts: Mapping[str, Checked]) -> None:
        self.name = name
        self.settings = settings
        self.parts = parts
        self.stats = {part: RunningStats() for part, weighed in settings.parts.items() if weighed.normalize}
        self.sum_stats = RunningStats()

    def score(self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]) -> Scored:
        """Score by every part, add up, normalise, clip, and subtract the penalties last, so that no clip hides them."""
        parts: dict[str, list[float]] = {}
        terms: dict[str, list[float]] = {}
        total = [0.0] * len(completions)
        for name, part in self.parts.items():
            scored = part.score(prompts, completions, finished)
            parts |= {name: scored.total} | {f"{name}/{inner}": values for inner, values in scored.parts.items()}
            terms[name] = self.weighted(name, scored.total)
            total = [value + more for value, more in zip(total, terms[name], strict=True)]
        if self.settings.normalize:
            total = self.normalized(total, terms)
        if clip := self.settings.clip:
            clipped = [max(-clip, min(clip, value)) for value in total]
            terms["clip"] = [after - before for before, after in zip(total, clipped, strict=True)]
            total = clipped
        return Scored(self.penalized(total, terms, completions, finished), terms, parts)

    def weighted(self, part: str, scores: list[float]) -> list[float]:
        """Return what a part adds to the sum, [completions]."""
        if part in self.stats:
            self.stats[part].update(scores)
            scores = self.stats[part].normalized(scores)
        weight = self.settings.parts[part].weight
        return [weight * value for value in scores]

    def normalized(self, total: list[float], terms: dict[str, list[float]]) -> list[float]:
        """Normalise sums, [completions]; the terms are scaled with them, and the mean becomes a term."""
        self.sum_stats.update(total)
        scale = self.sum_stats.scale
        for name, values in terms.items():
            terms[name] = [value / scale for value in values]
        terms["normalize"] = [-self.sum_stats.mean / scale] * len(total)
        return self.sum_stats.normalized(total)

    def penalized(
        self, total: list[float], terms: dict[str, list[float]], completions: Sequence[str], finished: Sequence[bool]
    ) -> list[float]:
        """Subtract a penalty for each word and one for a missing end; each becomes a term where it is not 0."""
        length, missing = self.settings.length_penalty, self.settings.missing_eos_penalty
        if length:
            terms["length_penalty"] = [-length * len(text.split()) for text in completions]
        if missing:
            terms["missing_eos_penalty"] = [-missing * (not end) for end in finished]
        penalties = [
            length * len(text.split()) + missing * (not end) for text, end in zip(completions, finished, strict=True)
        ]
        return [value - less for value, less in zip(total, penalties, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Return the running means."""
        return {"total": self.sum_stats.state_dict()} | {f"part {k}": v.state_dict() for k, v in self.stats.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state that `state_dict` returned."""
        self.sum_stats.load_state_dict(state["total"])
        for name, stats in self.stats.items():
            stats.load_state_dict(state[f"part {name}"])


def load(settings: MixtureReward, context: Context) -> Mixture:
    """Load every part of a mixture."""
    parts = {name: load_part(part.reward, context.at(f"parts.{name}.reward")) for name, part in settings.parts.items()}
    return Mixture(context.name(settings.kind), settings, parts)
