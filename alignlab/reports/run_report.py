"""The end of a run for people: one HTML file that asks nothing of the network, and a table for the terminal.

Both are made from the files in the run's folder alone. Text that comes from data or from a model is escaped by the
template, and the page's own policy lets no script run but the one that the template holds.
"""

import base64
import hashlib
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.chat import Turn
from alignlab.pipeline.run_folder import (
    CONFIG,
    PROVENANCE,
    REPORT,
    SampleRecord,
    read_gates,
    read_metrics,
    read_provenance,
    read_samples,
    read_settings,
)
from alignlab.reports.charts import Series, curves, whiskers
from alignlab.reports.constitutional import section
from alignlab.reports.run_results import Change, Stage, Table, headline, read_stages, side_by_side
from alignlab.reports.sweep_results import sweep_table as sweep_table
from alignlab.reports.templates import render
from alignlab.runtime.files import write_text

if TYPE_CHECKING:
    from markupsafe import Markup
    from rich.table import Table as Printed
    from rich.text import Text

CHARTS = (
    ("loss", ("train/loss", "eval/loss")),
    ("pairs ranked right", ("reward/accuracy", "eval/reward_accuracy")),
    ("reward margin", ("reward/margin", "eval/reward_margin")),
    ("reward", ("reward/mean", "reward/held_out", "reward/chosen", "reward/rejected")),
    ("score by the world's rules", ("gold/score",)),
    ("log-probability", ("policy/logps_chosen", "policy/logps_rejected")),
    ("KL to the reference", ("policy/kl",)),
    ("tokens guessed right", ("train/mean_token_accuracy", "eval/mean_token_accuracy")),
)
UNDRAWN = {"train/epoch", "train/num_tokens", "train/seconds", "train/mean_loss", "eval/epoch", "eval/num_tokens"}


class Curves(NamedTuple):
    """The charts of a stage: those to look at, and the rest."""

    stage: str
    first: "list[Markup]"
    rest: "list[Markup]"


class Answers(NamedTuple):
    """A prompt and what each model answered, in the order of the models, and what each answer was worth, in words."""

    kind: str
    prompt: list[Turn]
    texts: list[str]
    worth: list[str]


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run's folder and give its path."""
    script = (Path(__file__).parent / "report.js").read_text(encoding="utf-8")
    page = render(REPORT, **facts(folder), whiskers=whiskers, script=script, script_hash=sha256(script))
    write_text(folder / REPORT, page)
    return folder / REPORT


def facts(folder: Path) -> dict[str, Any]:
    """Everything that the template shows."""
    stages = read_stages(folder)
    models, answers = read_answers(folder, stages, shown_samples(folder))
    return {
        "title": " → ".join(stage.name for stage in stages),
        "headline": headline(stages),
        "stages": stages,
        "tables": side_by_side(stages),
        "curves": [drawn for stage in stages if (drawn := draw(folder, stage)).first],
        "rang": [rang for stage in stages for rang in read_gates(folder / stage.name)],
        "constitutional": section(folder, stages),
        "models": models,
        "answers": answers,
        "kinds": list(dict.fromkeys(answer.kind for answer in answers if answer.kind)),
        "settings": read_text(folder / CONFIG),
        "versions": [(stage.name, text) for stage in stages if (text := provenance(folder / stage.name))],
    }


def sha256(script: str) -> str:
    """The hash by which a content security policy knows a script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def read_text(path: Path) -> str:
    """A file's text, or nothing where it is absent."""
    return path.read_text(encoding="utf-8") if path.exists() else ""


def provenance(folder: Path) -> str:
    """What a stage's result stands on, without the config, which is shown once for all."""
    if not (folder / PROVENANCE).exists():
        return ""
    known = {name: value for name, value in read_provenance(folder).items() if name != "config"}
    return json.dumps(known, indent=2, ensure_ascii=False)


def shown_samples(folder: Path) -> int:
    """How many completions of each kind the run's config wants to be shown."""
    return int(read_settings(folder).get("evaluation", {}).get("samples", 8))


def read_answers(folder: Path, stages: list[Stage], count: int) -> tuple[list[str], list[Answers]]:
    """The models that answered, and at most `count` prompts of each kind with all their answers."""
    read = {stage.name: samples for stage in stages if (samples := read_samples(folder / stage.name))}
    if not read:
        return [], []
    answered = {name: {sample["id"]: sample for sample in samples} for name, samples in read.items()}
    taken: dict[str, int] = {}
    answers = []
    for sample in list(read.values())[-1]:
        taken[sample["kind"]] = taken.get(sample["kind"], 0) + 1
        if taken[sample["kind"]] <= count:
            own = [of.get(sample["id"]) for of in answered.values()]
            texts = [sample["before"]["completion"], *(one["after"]["completion"] if one else "" for one in own)]
            answers.append(Answers(sample["kind"], sample["prompt"], texts, ["", *map(worth, own)]))
    return ["base", *answered], answers


def worth(sample: SampleRecord | None) -> str:
    """What an answer was worth: its reward, its KL, and what else was measured of it, as far as it was."""
    scores = sample["scores"] if sample else {}
    return ", ".join(f"{name} {scores[key]:.2f}" for key, name in WORTH.items() if key in scores)


WORTH = {"reward/mean": "reward", "gold/score": "gold", "toxicity/score": "toxicity", "eval/kl": "KL"}


def draw(folder: Path, stage: Stage) -> Curves:
    """The curves of a stage's metrics; a step that was logged again, after a resumption, counts once."""
    steps: dict[str, dict[float, float]] = {}
    for step, metrics in read_metrics(folder / stage.name):
        for name, value in metrics.items():
            steps.setdefault(name, {})[step] = value
    series = {name: Series(name, sorted(points.items())) for name, points in steps.items() if name not in UNDRAWN}
    first = [curves(title, found) for title, names in CHARTS if (found := [series[n] for n in names if n in series])]
    known = {name for _, names in CHARTS for name in names}
    rest = [curves(name, [one]) for name, one in sorted(series.items()) if name not in known and len(one.points) > 1]
    return Curves(stage.name, first, rest)


def table(folder: Path, width: int | None = None) -> str:
    """The models side by side as text, over the headline; in colour on a terminal."""
    from rich.console import Console

    stages = read_stages(folder)
    coloured = sys.stdout.isatty()
    page = io.StringIO()
    console = Console(file=page, force_terminal=coloured, width=width or (None if coloured else 100), highlight=False)
    for one in side_by_side(stages):
        console.print(printed(one))
    console.print(headline(stages), style="bold", markup=False)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


COLOURS = {"better": "green", "worse": "red", "changed": "yellow", "unclear": "dim"}


def printed(found: Table) -> "Printed":
    """A table for the terminal: under each value its interval; a change that is not clear is marked with `?`."""
    from rich import box
    from rich.table import Table as Printed
    from rich.text import Text

    compared = len(found.models) > 1
    shown = Printed(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    shown.add_column("measure", no_wrap=True)
    for column in (*found.models, *([f"{found.models[-1]} − base"] if compared else [])):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in found.rows:
        name = Text.assemble(row.name, (f"\n  n = {row.n:,}", "dim"))
        cells = [Text.assemble(cell.text, (f"\n{cell.interval}", "dim")) if cell else Text("") for cell in row.cells]
        shown.add_row(name, *cells, *([overall(row.overall)] if compared else []))
    return shown


def overall(change: Change | None) -> "Text":
    """A change over its interval, in the colour of its verdict."""
    from rich.text import Text

    if change is None:
        return Text("")
    words = {"unclear": "?", "changed": ""}.get(change.verdict, change.verdict)
    head = f"{change.text.removesuffix(' points')} {words}".strip()
    return Text.assemble((head, COLOURS[change.verdict]), (f"\n{change.interval}", "dim"))
