"""The report of a run: one HTML page that loads nothing from the network.

It is made from the files in the run's folder alone. The template escapes text that comes from data or from a model.
The page's content security policy allows no script but the one in the template.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alignlab.evaluation.calibration import bins
from alignlab.pipeline.run_folder import (
    CONFIG,
    CONTAMINATION,
    PLAN_TEXT,
    PROVENANCE,
    RECORDS,
    REPORT,
    read_gates,
    read_json,
    read_metrics,
    read_provenance,
    read_settings,
)
from alignlab.reports.charts import Series, curves, whiskers
from alignlab.reports.constitutional import section
from alignlab.reports.headline import findings
from alignlab.reports.item_cards import MAX_BYTES, ItemCards
from alignlab.reports.primary_measures import unmeasured
from alignlab.reports.report_items import read_items, read_records
from alignlab.reports.run_results import Stage, read_stages, read_stopped, side_by_side
from alignlab.reports.templates import render
from alignlab.runtime.files import write_text

if TYPE_CHECKING:
    from markupsafe import Markup

CHARTS = (  # title and metrics of the charts that are shown first
    ("loss", ("train/loss", "eval/loss")),
    ("accuracy on pairs", ("reward/accuracy", "eval/reward_accuracy")),
    ("reward margin", ("reward/margin", "eval/reward_margin")),
    ("reward", ("reward/mean", "reward/held_out", "reward/chosen", "reward/rejected")),
    ("gold score", ("gold/score",)),
    ("log-probability", ("policy/logps_chosen", "policy/logps_rejected")),
    ("KL to the reference", ("policy/kl",)),
    ("token accuracy", ("train/mean_token_accuracy", "eval/mean_token_accuracy")),
)
NOT_DRAWN = {"train/epoch", "train/num_tokens", "train/seconds", "train/mean_loss", "eval/epoch", "eval/num_tokens"}
OVER_KL = ("reward/mean", "reward/held_out", "gold/score")  # drawn over the KL, too


class StageCharts(NamedTuple):
    """The charts of a stage: those that are shown at once, and the rest."""

    stage: str
    first: "list[Markup]"
    rest: "list[Markup]"


class Cost(NamedTuple):
    """What training a stage took; `tokens` is None where they were not counted."""

    name: str
    action: str
    seconds: float
    tokens: int | None
    machine: str


def write_report(folder: Path) -> Path:
    """Write the report into a run's folder; return its path."""
    write_text(folder / REPORT, render(REPORT, "report.js", **facts(folder), whiskers=whiskers))
    return folder / REPORT


def facts(folder: Path) -> dict[str, Any]:
    """Collect everything that the template shows."""
    stages, stopped = read_stages(folder), read_stopped(folder)
    names = [stage.name for stage in stages] + ([stopped["stage"]] if stopped else [])
    sets = read_items(folder, stages)
    return {
        "title": " → ".join(names),
        "findings": [*findings(stages), *unmeasured(folder, stages)],
        "stages": stages,
        "names": names,
        "stopped": stopped,
        "seed": read_settings(folder).get("seed", ""),
        "tables": side_by_side(stages),
        "charts": [charts for name in names if (charts := draw(folder, name)).first],
        "gates": [gate for name in names for gate in read_gates(folder / name)],
        "constitutional": section(folder, stages),
        "item_sets": [ItemCards(items, MAX_BYTES // len(sets)) for items in sets],
        "contamination": read_json(folder / CONTAMINATION) if (folder / CONTAMINATION).exists() else [],
        "costs": [cost(folder, stage) for stage in stages],
        "plan": read_text(folder / PLAN_TEXT),
        "settings": read_text(folder / CONFIG),
        "provenance": [(stage.name, text) for stage in stages if (text := provenance(folder / stage.name))],
    }


def read_text(path: Path) -> str:
    """Read a file's text; empty where there is no file."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def provenance(stage: Path) -> str:
    """Return a stage's provenance as text, without the config, which is shown once for all stages."""
    if not (stage / PROVENANCE).exists():
        return ""
    shown = {name: value for name, value in read_provenance(stage).items() if name != "config"}
    return json.dumps(shown, indent=2, ensure_ascii=False)


def cost(folder: Path, stage: Stage) -> Cost:
    """Read what training a stage took, and where it was trained."""
    known = read_provenance(folder / stage.name) if (folder / stage.name / PROVENANCE).exists() else None
    tokens = known.get("tokens") if known else None
    machine = f"{known.get('platform', '')}, Python {known.get('python', '')}" if known else ""
    return Cost(stage.name, stage.action, stage.result["seconds"], tokens, machine)


def draw(folder: Path, stage: str) -> StageCharts:
    """Draw the curves of a stage's metrics; a step that was logged again after resuming counts once."""
    points: dict[str, dict[float, float]] = {}
    for step, metrics in read_metrics(folder / stage):
        for name, value in metrics.items():
            points.setdefault(name, {})[step] = value
    series = {name: Series(name, sorted(own.items())) for name, own in points.items() if name not in NOT_DRAWN}
    first = [curves(title, shown) for title, names in CHARTS if (shown := [series[n] for n in names if n in series])]
    first += [*reward_over_kl(series), *reliability(folder / stage)]
    in_charts = {name for _, names in CHARTS for name in names}
    rest = [curves(name, [own]) for name, own in sorted(series.items()) if name not in in_charts and own.points[1:]]
    return StageCharts(stage, first, rest)


def reliability(stage: Path) -> "list[Markup]":
    """Draw how many held-out labels are harmful over the cost that a cost model predicts, in bins of equally many."""
    rows = [row["values"] for row in read_records(stage / RECORDS) if row["measure"] == "cost"]
    if not rows:
        return []
    cost, harmful = (np.array([values[name] for values in rows]) for name in ("cost/cost", "cost/harmful"))
    number = bins(cost)
    points = [(float(cost[number == at].mean()), float(harmful[number == at].mean())) for at in range(max(number) + 1)]
    drawn = [Series("cost model", points), Series("perfectly calibrated", [(0.0, 0.0), (1.0, 1.0)])]
    return [curves("share of harmful labels over predicted cost", drawn, "predicted cost")]


def reward_over_kl(series: "dict[str, Series]") -> "list[Markup]":
    """Draw the rewards of a stage over its KL to the reference, step by step."""
    kl = dict(series["policy/kl"].points) if "policy/kl" in series else {}
    shown = [
        Series(name, [(kl[step], value) for step, value in series[name].points if step in kl])
        for name in OVER_KL
        if name in series
    ]
    return [curves("reward against KL", drawn, "KL in nats")] if (drawn := [one for one in shown if one.points]) else []
