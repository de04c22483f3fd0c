"""Several rewards of one sort made into one score, and how far they disagree.

Members that were trained on the same pairs with different seeds agree on completions like those; a policy that has
moved away from them shows in their spread (Coste et al. 2024).
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev

from alignlab.chat import Turn
from alignlab.config.reward import EnsembleReward
from alignlab.rewards import load as load_part
from alignlab.rewards.protocol import Checked, Context, Scored

SPREAD = "spread"  # the part that holds the standard deviation of the members' scores


class Ensemble:
    """Members that score the same thing."""

    def __init__(self, name: str, settings: EnsembleReward, parts: Mapping[str, Checked]) -> None:
        self.name = name
        self.settings = settings
        self.parts = parts

    def score(self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]) -> Scored:
        """Score by every member, and combine the members' scores of each completion."""
        parts = {name: part.score(prompts, completions, finished).total for name, part in self.parts.items()}
        rows = list(zip(*parts.values(), strict=True))
        total = [combined(scores, self.settings) for scores in rows]
        return Scored(total, parts={**parts, SPREAD: [pstdev(scores) for scores in rows]})


def combined(scores: Sequence[float], settings: EnsembleReward) -> float:
    """Return the mean of scores, the least of them, or the mean less a multiple of their deviation."""
    if settings.combine == "minimum":
        return min(scores)
    if settings.combine == "mean":
        return fmean(scores)
    return fmean(scores) - settings.spread_coef * pstdev(scores)


def load(settings: EnsembleReward, context: Context) -> Ensemble:
    """Load every member of an ensemble."""
    parts = {name: load_part(member, context.at(f"members.{name}")) for name, member in settings.members.items()}
    return Ensemble(context.name(settings.kind), settings, parts)
