"""Measure how often a candidate is promoted: one like the baseline, one 5 points worse on a constraint, a better one.

    python benchmarks/promotion.py [trials]

Both models complete the same prompts. Each prompt has its own probability of each behavior (a beta distribution), which
both models share, and their completions are drawn independently. The objective is a score from 0 to 1 per prompt. Rates
at the start: 20% compliance with harmful prompts, 35% helpful, 40% honest, 8% refusal of innocent prompts.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from alignlab.config.compose import bind_tree, check
from alignlab.config.schema import Config
from alignlab.config.task import Judged
from alignlab.evaluation.acceptance import Decision, decide
from alignlab.evaluation.metrics import Metric, Scores, mean, rate
from alignlab.evaluation.statistics import mean_columns

RATES = {  # of a measure: the direction, the mean probability, and the prompts per kind of prompt
    "gold/harmful_compliance": ("lower", 0.2, 1),
    "gold/helpful": ("higher", 0.35, 2),
    "gold/honest": ("higher", 0.4, 2),
    "gold/over_refusal": ("lower", 0.08, 1),
}
OBJECTIVE = "gold/score"
KINDS = 7  # kinds of prompt, each of which has n prompts
SPREAD = 2.0  # of the beta distribution of a prompt's probability: a + b


def simulate(generator: np.random.Generator, n: int, changes: Mapping[str, float]) -> tuple[dict[str, Scores], ...]:
    """Draw the scores of a candidate and of a baseline on n prompts of each kind; `changes` are the candidate's."""
    candidate, baseline = {}, {}
    for name, (better, level, kinds) in RATES.items():
        chance = generator.beta(SPREAD * level, SPREAD * (1 - level), n * kinds)
        moved = shifted(chance, changes.get(name, 0.0))
        metric = rate(name, better)  # type: ignore[arg-type]
        candidate[name] = scores(metric, generator.random(n * kinds) < moved)
        baseline[name] = scores(metric, generator.random(n * kinds) < chance)
    level = generator.beta(1.0, 1.5, n * KINDS)
    metric = mean(OBJECTIVE, "higher")
    drawn = [level + generator.normal(change, 0.3, n * KINDS) for change in (changes.get(OBJECTIVE, 0.0), 0.0)]
    candidate[OBJECTIVE], baseline[OBJECTIVE] = (scores(metric, values) for values in drawn)
    return candidate, baseline


def shifted(chance: Any, change: float) -> Any:
    """Return probabilities whose mean has changed by `change`: each moves the same share of its way to 0 or to 1."""
    room = float(np.mean(1 - chance if change > 0 else chance))
    return chance + change / room * ((1 - chance) if change > 0 else chance)


def scores(metric: Metric, values: Any) -> Scores:
    """Return the scores of a metric, a row per prompt."""
    ids = tuple(map(str, range(len(values))))
    return Scores(metric, metric.name, mean_columns(np.asarray(values, float)), ids, ids)


def decisions(n: int, trials: int, changes: Mapping[str, float], seed: int, *overrides: str) -> list[Decision]:
    """Return the decisions of `task=promote` with its default bounds on a number of simulated candidates."""
    config = promotion(*overrides)
    settings, generator = config.task, np.random.default_rng(seed)
    assert isinstance(settings, Judged)
    pairs = (simulate(generator, n, changes) for _ in range(trials))
    return [decide(*pair, settings.objective, settings.bounds, config.evaluation) for pair in pairs]


@cache
def promotion(*overrides: str) -> Config:
    """Return the settings of a promotion."""
    return bind_tree(check(["task=promote", "task.model=any", *overrides], binds=False).trees[0])


def share(accepted: Sequence[Decision]) -> float:
    """Return the share of candidates that were accepted."""
    return sum(one["accepted"] for one in accepted) / len(accepted)


CASES = {
    "like the baseline (A/A)": {},
    "better, nothing else changed": {OBJECTIVE: 0.05},
    "better, compliance 10 points lower": {OBJECTIVE: 0.05, "gold/harmful_compliance": -0.1},
    "better, compliance 5 points higher": {OBJECTIVE: 0.05, "gold/harmful_compliance": 0.05},
    "better, over-refusal 5 points higher": {OBJECTIVE: 0.05, "gold/over_refusal": 0.05},
    "better, helpfulness 5 points lower": {OBJECTIVE: 0.05, "gold/helpful": -0.05},
}


def main() -> None:
    """Print the share of candidates that are promoted, by the number of prompts of each kind."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    sizes = (60, 300, 1000, 3000)
    print(f"promoted of {trials} candidates | " + " | ".join(f"{n:,} prompts a kind" for n in sizes))
    for name, changes in CASES.items():
        print(f"{name} | " + " | ".join(f"{share(decisions(n, trials, changes, n)):.1%}" for n in sizes), flush=True)
    twenty = [not one["accepted"] for one in decisions(300, 20, CASES["better, compliance 5 points higher"], 0)]
    print(f"20 candidates with 5 points more compliance, 300 prompts a kind: {sum(twenty)} refused")
    print(f"20 candidates like the baseline: {sum(one['accepted'] for one in decisions(300, 20, {}, 0))} promoted")


if __name__ == "__main__":
    main()
