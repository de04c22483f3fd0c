"""Constitutional AI compared with learning from human labels: harmlessness, helpfulness and cost.

Made from the files of a sweep over methods (`experiment=cai_vs_rlhf`). Two runs with the same seed completed the same
held-out prompts with the same random streams, so they are compared prompt by prompt. The training rows are counted by
author, and by whether they concern red-team prompts.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alignlab.evaluation.scores import Measurement
from alignlab.evaluation.statistics import Interval, rate_difference
from alignlab.pipeline.run_folder import is_finished, read_row_counts, read_samples, write_json
from alignlab.pipeline.sweep_folder import TRADE_OFF, TRADE_OFF_PAGE, run_folders
from alignlab.reports.charts import Series, curves
from alignlab.reports.run_results import Stage, read_stages
from alignlab.reports.templates import render
from alignlab.runtime.files import write_text

RATES = {
    "gold/harmful_compliance": "complies with harmful requests",
    "gold/over_refusal": "refuses innocent requests",
    "gold/helpful": "helpful",
    "gold/honest": "honest",
}
HARM, HELP = "gold/harmful_compliance", "gold/helpful"
AUTHORS = {"people": "human rows", "people, on attacks": "of these on red-team prompts", "model": "rows by the model"}
CONFIDENCE = 0.95


class MethodRun(NamedTuple):
    """One run: its last method, its seed, its folder, its stages, and its training rows by author."""

    method: str
    seed: int
    folder: Path
    stages: list[Stage]
    rows: Counter[str]

    @property
    def seconds(self) -> float:
        """Return the seconds of training over all stages."""
        return sum(stage.result["seconds"] for stage in self.stages)

    @property
    def last(self) -> dict[str, Measurement]:
        """Return the measurements of the last model."""
        return self.stages[-1].measurements


def write_trade_off(folder: Path) -> Path | None:
    """Write the page and its facts into a sweep's folder; None where either kind of method is missing."""
    runs = [read_run(place) for place in run_folders(folder) if is_finished(place)]
    if len({run.method.startswith("cai") for run in runs}) < 2 or not all(HARM in run.last for run in runs):
        return None
    write_json(folder / TRADE_OFF, facts(runs))
    write_text(folder / TRADE_OFF_PAGE, page(runs))
    return folder / TRADE_OFF_PAGE


def read_run(folder: Path) -> MethodRun:
    """Read one run."""
    stages = read_stages(folder)
    rows: Counter[str] = Counter()
    for stage in stages:
        rows.update(read_row_counts(folder / stage.name))
    return MethodRun(stages[-1].name, stages[-1].result["seed"], folder, stages, rows)


def facts(runs: Sequence[MethodRun]) -> dict[str, Any]:
    """Return the comparison as plain values for JSON."""
    return {
        "runs": [
            {
                "method": run.method,
                "seed": run.seed,
                "seconds": run.seconds,
                "rows": dict(run.rows),
                "measures": {
                    name: {"value": row["value"], "low": row["low"], "high": row["high"]}
                    for name, row in run.last.items()
                    if name in RATES
                },
            }
            for run in runs
        ],
        "differences": [
            {"methods": [first.method, second.method], "seed": first.seed, "measure": name}
            | difference(first, second, name)._asdict()
            for first, second in pairs(runs)
            for name in RATES
        ],
    }


def pairs(runs: Sequence[MethodRun]) -> Iterator[tuple[MethodRun, MethodRun]]:
    """Yield every two runs of one seed, Constitutional AI first."""
    for first, second in combinations(sorted(runs, key=lambda run: not run.method.startswith("cai")), 2):
        if first.seed == second.seed:
            yield first, second


def difference(first: MethodRun, second: MethodRun, measure: str) -> Interval:
    """Compute a rate of the first run's last model minus that of the second's, prompt by prompt."""
    one, other = (scores(run.folder / run.method, measure) for run in (first, second))
    ids = sorted(one.keys() & other.keys())
    now, then = (np.array([values[name] for name in ids]) for values in (one, other))
    return rate_difference(now, then, CONFIDENCE).interval


def scores(stage: Path, measure: str) -> dict[str, float]:
    """Return the score of each sample of a stage to which a measure applies, by prompt."""
    return {row["id"]: row["scores"][measure] for row in read_samples(stage) if measure in row["scores"]}


def page(runs: Sequence[MethodRun]) -> str:
    """Build the page."""
    paths = [Series(f"{run.method}, seed {run.seed}", path(run)) for run in runs]
    return render(
        TRADE_OFF_PAGE,
        chart=curves("helpful completions over harmful ones", paths, "harm"),
        head=("method", "seed", *RATES.values(), *AUTHORS.values(), "seconds of training"),
        rows=[row(run) for run in runs],
        sentences=list(sentences(runs)),
    )


def path(run: MethodRun) -> list[tuple[float, float]]:
    """Return harm and helpfulness in percent, of the base model and after each stage."""
    models = [stage.measurements for stage in run.stages if HARM in stage.measurements]
    points = [(models[0][HARM]["before"]["value"], models[0][HELP]["before"]["value"])]
    points += [(rows[HARM]["value"], rows[HELP]["value"]) for rows in models]
    return [(100 * harm, 100 * helpful) for harm, helpful in points]


def row(run: MethodRun) -> list[str]:
    """Return a run's cells of the table."""
    rates = (f"{100 * run.last[name]['value']:.1f} %" for name in RATES)
    counts = (f"{run.rows[author]:,}" for author in AUTHORS)
    return [run.method, str(run.seed), *rates, *counts, f"{run.seconds:.0f}"]


def sentences(runs: Sequence[MethodRun]) -> Iterator[str]:
    """Yield the comparison in sentences, one per pair of runs and measure."""
    for first, second in pairs(runs):
        for name, words in RATES.items():
            gap = difference(first, second, name)
            ends = f"{100 * gap.value:+.1f} points ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})".replace("-", "−")
            verdict = "no clear difference" if gap.low <= 0 <= gap.high else "a clear difference"
            yield f"{first.method} minus {second.method}, seed {first.seed}, {words}: {ends}, {verdict}."
