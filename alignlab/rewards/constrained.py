"""One reward subject to bounds on the mean of others: Lagrangian PPO (Dai et al. 2023, eq. 12; Stooke et al. 2020).

total = (R - Σ λ C) / √(1 + Σ λ²), where objective R and costs C are standardised over all completions so far, and each
weight λ is set by a controller from the mean cost of the rollout. The denominator keeps the scale of the total, so that
a change of λ is no change of learning rate.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean
from typing import Any

from alignlab.chat import Turn
from alignlab.config.reward import ConstrainedReward, Cost
from alignlab.errors import failure
from alignlab.models.model_folder import read_object
from alignlab.rewards import load as load_part
from alignlab.rewards.lagrangian import Gains, Multiplier, calibrated
from alignlab.rewards.protocol import Checked, Context, Scored
from alignlab.rewards.running_stats import RunningStats

OBJECTIVE = "objective"
CALIBRATION = "calibration.json"  # of a cost model


class Constrained:
    """An objective, costs, and a multiplier for each cost; every call of `score` is a rollout to the multipliers."""

    def __init__(
        self,
        name: str,
        settings: ConstrainedReward,
        parts: Mapping[str, Checked],
        ends: Mapping[str, tuple[float, float]],
    ) -> None:
        self.name = name
        self.settings = settings
        self.parts = parts  # the objective and the costs, by name
        self.costs = tuple(settings.costs)  # the names of the parts that are costs
        self.gains = Gains(settings.proportional, settings.integral, settings.derivative, settings.max_weight)
        self.stats = {name: RunningStats() for name in parts}
        self.ends = ends  # what is read without harm and with nothing but harm, by cost
        first = settings.initial_weight
        self.multipliers = {name: Multiplier(first, first) for name in settings.costs}

    def score(self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]) -> Scored:
        """Score by every part, update the multipliers by this call's mean costs, and combine."""
        if not completions:
            return Scored([])
        scores: dict[str, list[float]] = {}
        parts: dict[str, list[float]] = {}
        for name, part in self.parts.items():
            scored = part.score(prompts, completions, finished)
            scores[name] = scored.total
            parts |= {name: scored.total} | {f"{name}/{inner}": values for inner, values in scored.parts.items()}
        for name, cost in self.settings.costs.items():
            parts |= self.update(name, cost, scores[name])
        weights = {OBJECTIVE: 1.0} | {name: -multiplier.weight for name, multiplier in self.multipliers.items()}
        scale = sqrt(sum(weight**2 for weight in weights.values()))
        terms = {name: self.standardized(name, scores[name], weight / scale) for name, weight in weights.items()}
        return Scored([sum(values) for values in zip(*terms.values(), strict=True)], terms, parts)

    def update(self, name: str, cost: Cost, scores: list[float]) -> dict[str, list[float]]:
        """Update a cost's multiplier; return what is logged: the cost as read, as calibrated, and the weight."""
        read = [float(score >= cost.threshold) for score in scores] if cost.threshold is not None else scores
        true = [calibrated(value, *self.ends[name]) for value in read]
        self.multipliers[name] = self.multipliers[name].updated(fmean(true), cost.bound, self.gains)
        weight = [self.multipliers[name].weight] * len(scores)
        return {f"{name}/read": read, f"{name}/cost": true, f"{name}/weight": weight}

    def standardized(self, name: str, scores: list[float], weight: float) -> list[float]:
        """Return a part's term of the total, [completions]: standardised over all scores so far, and weighted."""
        self.stats[name].update(scores)
        return [weight * value for value in self.stats[name].normalized(scores)]

    def state_dict(self) -> dict[str, Any]:
        """Return the running means and the multipliers."""
        stats = {name: stats.state_dict() for name, stats in self.stats.items()}
        return {"stats": stats, "multipliers": {name: list(state) for name, state in self.multipliers.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state that `state_dict` returned."""
        for name, stats in self.stats.items():
            stats.load_state_dict(state["stats"][name])
        self.multipliers = {name: Multiplier(*values) for name, values in state["multipliers"].items()}


def load(settings: ConstrainedReward, context: Context) -> Constrained:
    """Load the objective and every cost, with the floor and the ceiling of each."""
    parts = {OBJECTIVE: load_part(settings.objective, context.at(OBJECTIVE))}
    parts |= {name: load_part(cost.reward, context.at(f"costs.{name}.reward")) for name, cost in settings.costs.items()}
    ends = {name: ends_of(cost, context.at(f"costs.{name}.reward")) for name, cost in settings.costs.items()}
    return Constrained(context.name(settings.kind), settings, parts, ends)


def ends_of(cost: Cost, context: Context) -> tuple[float, float]:
    """Return the floor and the ceiling of a cost: its own, those of its model's calibration, or 0 and 1.

    Scores that a threshold turns into 0 or 1 are no longer what was calibrated.
    """
    file = context.folder(cost.reward.model_path) / CALIBRATION if cost.reward.model_path else None
    is_calibrated = file and file.exists() and cost.threshold is None
    known = read_object(file) if file and is_calibrated else {}
    floor = known.get("floor", 0.0) if cost.floor is None else cost.floor
    ceiling = known.get("ceiling", 1.0) if cost.ceiling is None else cost.ceiling
    if ceiling <= floor:
        raise failure(context.place, f"its ceiling ({ceiling:g}) is not above its floor ({floor:g})", "set both")
    return floor, ceiling
