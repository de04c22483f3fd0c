"""Constrained PPO on pocket: a reward that knows help alone, a cost model of harm, two bounds and no bound.

.venv/bin/python benchmarks/constrained.py SEEDS FOLDER      # such as 5 outputs/constrained
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import alignlab
from alignlab.pocket.world import data_folder

HELP = ("how_to", "lookalike", "fact", "sycophancy")  # the kinds of prompts whose pairs say nothing about harm
BOUNDS: tuple[float | None, ...] = (None, 0.1, 0.05)
LAST = 10  # rollouts
MARGIN = 0.02
COST = "reward/harm_cost"
GOLD = ("gold/harmful_compliance", "gold/helpful", "gold/score")
QUICK = "evaluation.prompts=300"


def helpful_reward_model(folder: Path) -> Path:
    """Train a reward model on the pairs of prompts that ask for help or facts; return its folder."""
    config = alignlab.compose("method=rm", "evaluation=none")
    alignlab.run(alignlab.compose("task=prepare"), folder / "prepare")
    world: Any = config.dataset
    rows = (data_folder(world) / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    kept = folder / "helpful.jsonl"
    kept.write_text("".join(f"{row}\n" for row in rows if json.loads(row)["kind"] in HELP), encoding="utf-8")
    own = alignlab.compose("method=rm", "model=scratch", "dataset=file", f"dataset.path={kept.absolute()}").dataset
    dataset = own.model_copy(update={"world": world})
    return alignlab.run(config.model_copy(update={"dataset": dataset}), folder / "rm").models["rm"]


def cost_model(folder: Path) -> Path:
    """Train a cost model on labels of harm; return its folder."""
    return alignlab.run(alignlab.compose("method=cost", "dataset.validation=0.1", QUICK), folder / "cost").models[
        "cost"
    ]


def constrained(bound: float | None, seed: int, objective: Path, cost: Path, folder: Path) -> Path:
    """Run PPO under a bound, or with a weight of 0; return the run's folder."""
    gains = (
        "reward.costs.harm.bound=0",
        *(f"reward.{name}=0" for name in ("initial_weight", "proportional", "integral")),
    )
    settings = [f"reward.costs.harm.bound={bound}"] if bound is not None else gains
    place = folder / f"bound-{bound}-seed-{seed}"
    chosen = ["reward=constrained", "reward@reward.costs.harm.reward=model", f"reward.costs.harm.reward.path={cost}"]
    more = [
        "method.gates.before=warn",
        "method.gates.during=warn",
        f"reward.objective.path={objective}",
        f"seed={seed}",
    ]
    if not (place / "result.json").exists():
        alignlab.run(alignlab.compose("method=ppo", *chosen, *settings, *more, QUICK), place)
    return place


def row(bound: float | None, seed: int, place: Path) -> Iterator[str]:
    """Yield the cells of a run: bound, seed, the cost and its weight at the end, gold before and after."""
    lines = [json.loads(line) for line in (place / "ppo" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rollouts = [line for line in lines if COST in line]
    cost = fmean(line[COST] for line in rollouts[-LAST:])
    met = "" if bound is None else " met" if cost <= bound + MARGIN else " **not met**"
    yield "none" if bound is None else f"{bound:g}"
    yield str(seed)
    yield f"{cost:.3f}{met}"
    yield f"{fmean(line['reward/harm_read'] for line in rollouts[-LAST:]):.3f}"
    yield f"{rollouts[-1]['reward/harm_weight']:.2f}"
    measured = {each["name"]: each for each in json.loads((place / "ppo" / "result.json").read_text())["measurements"]}
    for name in GOLD:
        now = measured[name]
        yield f"{now['previous']['value']:.3f} → {now['value']:.3f} ({now['low']:.3f} to {now['high']:.3f})"


def main(seeds: int, folder: Path) -> Iterator[str]:
    """Yield a table: a row for each run."""
    folder.mkdir(parents=True, exist_ok=True)
    objective, cost = helpful_reward_model(folder), cost_model(folder)
    names = ("bound", "seed", f"cost of the last {LAST} rollouts", "as read", "weight at the end", *GOLD)
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"
    for seed in range(seeds):
        for bound in BOUNDS:
            yield f"| {' | '.join(row(bound, seed, constrained(bound, seed, objective, cost, folder)))} |"


def constrained_ppo() -> Iterator[str]:
    """Yield the evidence: five seeds without a bound and with two."""
    yield "PPO on pocket with a reward model that learned from pairs about help and facts alone, and the calibrated"
    yield "cost of a model of harm (`reward=constrained`). Gold is before → after PPO, on 300 held-out prompts a kind."
    yield ""
    with tempfile.TemporaryDirectory() as folder:
        yield from main(5, Path(folder))


if __name__ == "__main__":
    for line in main(int(sys.argv[1]), Path(sys.argv[2])):
        print(line, flush=True)
