"""The report of a run: one HTML page that loads nothing from the network, and a table for the terminal.

Both are made from the files in the run's folder alone. The template escapes text that comes from data or from a model.
The page's content security policy allows no script but the one in the template.
"""

import io
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.pipeline.run_folder import (
    CONFIG,
    CONTAMINATION,
    PROVENANCE,
    REPORT,
    read_gates,
    read_json,
    read_metrics,
    read_provenance,
    read_settings,
)
from alignlab.reports.charts import Series, curves, whiskers
from alignlab.reports.constitutional import section
from alignlab.reports.headline import findings, headline
from alignlab.reports.item_cards import MAX_BYTES, ItemCards
from alignlab.reports.report_items import read_items
from alignlab.reports.run_results import Change, Stage, Table, read_stages, read_stopped, side_by_side
from alignlab.reports.templates import render
from alignlab.runtime.files import write_text

if TYPE_CHECKING:
    from markupsafe import Markup
    from rich.table import Table as TerminalTable
    from rich.text import Text

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
WIDTH = 80  # columns of the table where there is no terminal
NARROW = 14  # letters of a measure's name in a line, where a table has no room for the whole
COLOURS = {"better": "green", "worse": "red", "changed": "yellow", "unclear": "dim"}


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
        "findings": findings(stages),
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
    first += reward_over_kl(series)
    in_charts = {name for _, names in CHARTS for name in names}
    rest = [curves(name, [own]) for name, own in sorted(series.items()) if name not in in_charts and own.points[1:]]
    return StageCharts(stage, first, rest)


def reward_over_kl(series: "dict[str, Series]") -> "list[Markup]":
    """Draw the rewards of a stage over its KL to the reference, step by step."""
    kl = dict(series["policy/kl"].points) if "policy/kl" in series else {}
    shown = [
        Series(name, [(kl[step], value) for step, value in series[name].points if step in kl])
        for name in OVER_KL
        if name in series
    ]
    return [curves("reward against KL", drawn, "KL in nats")] if (drawn := [one for one in shown if one.points]) else []


def table(folder: Path, width: int | None = None) -> str:
    """Return the headline and the models side by side as text, in `width` columns; in colour on a terminal.

    Without a width it is that of the terminal, or 80. Models between the first and the last are left out where they do
    not fit; their changes are in the report.
    """
    from rich.console import Console

    stages = read_stages(folder)
    coloured = sys.stdout.isatty()
    page = io.StringIO()
    console = Console(file=page, force_terminal=coloured, width=width or (None if coloured else WIDTH), highlight=False)
    console.print(headline(stages), style="bold", markup=False)
    for models in side_by_side(stages):
        if models.note:
            console.print("", models.note, sep="\n", style="dim", markup=False)
        shown = terminal_table(models)
        unlimited = console.options.update(width=1000)
        if console.measure(shown, options=unlimited).maximum > console.width and len(models.models) > 2:
            shown = terminal_table(models, ends_only=True)
        console.print("", shown, sep="\n")
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def terminal_table(models: Table, ends_only: bool = False) -> "TerminalTable":
    """Build a table for the terminal: each value over its interval; `?` marks a change that is not clear.

    With `ends_only` it has the values of the first model and the last one alone. `worse?` is worse by its own interval,
    but not after the correction for the number of measures.
    """
    from rich import box
    from rich.table import Table as TerminalTable
    from rich.text import Text

    compared = len(models.models) > 1
    shown = TerminalTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("measure", overflow="fold")
    last_stage = [f"{models.models[-1]} − {models.models[-2]}"] if len(models.models) > 2 else []
    places = [0, -1] if ends_only else range(len(models.models))
    for column in (
        *(models.models[place] for place in places),
        *last_stage,
        *([f"{models.models[-1]} − {models.models[0]}"] if compared else []),
    ):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in models.rows:
        clusters = f" in {row.clusters:,} clusters" if row.clusters != row.n else ""
        controls = f"\n  {row.controls}" if row.controls else ""
        written = in_lines(row.name, NARROW) if ends_only else row.name
        by = f"\n  by {row.scorer}" if row.scorer else ""
        name = Text.assemble(written, (f"\n  n = {row.n:,}{clusters}{by}{controls}", "dim"))
        own = [row.cells[place] for place in places]
        cells = [Text.assemble(cell.text, (f"\n{cell.interval}", "dim")) if cell else Text("") for cell in own]
        changes = [row.last_stage] * len(last_stage) + [row.overall] * compared
        shown.add_row(name, *cells, *map(terminal_change, changes))
    return shown


def in_lines(name: str, width: int) -> str:
    """Break the name of a measure behind / and _, into lines of at most `width` letters where that is possible."""
    lines = [""]
    for part in re.findall(r"[^/_]*[/_]|[^/_]+", name):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def terminal_change(change: Change | None) -> "Text":
    """Format a change over its interval, in the colour of its verdict."""
    from rich.text import Text

    if change is None:
        return Text("")
    words = {"unclear": "?", "changed": ""}.get(change.verdict, change.verdict)
    if change.verdict == "unclear" != change.alone:
        words = f"{change.alone}?"
    head = f"{change.text.removesuffix(' points')} {words}".strip()
    return Text.assemble((head, COLOURS[change.verdict]), (f"\n{change.interval}", "dim"))
