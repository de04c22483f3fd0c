"""The end of a sweep in the terminal: the primary measures of its runs side by side, and where the rest is.

The files in the sweep's folder hold every measure of every model, and each run has a report of its own.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from alignlab.evaluation.scores import IntervalRecord
from alignlab.evaluation.statistics import student
from alignlab.pipeline.run_folder import write_json
from alignlab.pipeline.sweep_folder import PAGE, RANKING, TABLE, read_facts, run_folders
from alignlab.reports.reward_hacking_page import write_hacking
from alignlab.reports.run_results import CONFIDENCE, interval_text, is_share, read_stages, side_by_side, value_text
from alignlab.reports.run_summary import NARROW, UNLIMITED, console_for, in_lines, width_of
from alignlab.reports.sweep_page import write_page
from alignlab.reports.sweep_ranking import (
    EndedRun,
    Ranking,
    as_json,
    markdown,
    ranking,
    read_run,
    sentences,
    without_value,
)
from alignlab.reports.sweep_results import sweep_table
from alignlab.reports.trade_off import write_trade_off
from alignlab.reports.written import try_to_write
from alignlab.runtime.files import write_text

if TYPE_CHECKING:
    from rich.table import Table as TerminalTable
    from rich.text import Text


class Model(NamedTuple):
    """A model of a sweep: its name, the runs that it stands for, and its measurements in each of them, by name."""

    name: str
    runs: str
    rows: list[dict[str, IntervalRecord]]


def summarise(folder: Path) -> Iterator[str]:
    """Write the table and the pages of a sweep and yield what the terminal shows; the last line is the table's file.

    `sweep.md` holds every measure of every group of runs, below the ranking where a measure ranks them.
    """
    every, ranked = sweep_table(folder), ranking(folder)
    if ranked and ranked.ranked:
        write_text(folder / TABLE, "\n".join([*markdown(ranked), "", every, ""]))
    yield from shown(folder, ranked)
    if ranked:
        write_json(folder / RANKING, as_json(ranked))
        command = read_facts(folder)["command"]
        yield from try_to_write("the page of the sweep", lambda: write_page(folder, ranked, command))
    yield from try_to_write("the page on reward hacking", lambda: write_hacking(folder))
    yield from try_to_write("the page on the trade-off", lambda: write_trade_off(folder))
    yield str(folder / TABLE)


def shown(folder: Path, ranked: Ranking | None) -> Iterator[str]:
    """Yield the primary measures, the runs without a result, the conclusions, and what the files hold."""
    runs = [read_run(place) for place in run_folders(folder)]
    finished = [run for run in runs if run.rows]
    if ranked and ranked.ranked:
        order = {settings: place for place, (settings, *_) in enumerate(ranked.places)}
        finished.sort(key=lambda run: order.get(run.settings, len(order)))
    if finished:
        yield table(folder, finished, ranked.measure if ranked and ranked.ranked else None)
    yield from ([""] if runs[len(finished) :] else [])
    yield from (without_value(run) for run in runs if not run.rows)
    if ranked:
        yield from ["", *sentences(ranked)] if ranked.ranked else []
        yield f"\nEvery measure is in {TABLE}, the runs in {PAGE}, reports in their folders:"


def table(folder: Path, runs: list[EndedRun], objective: str | None, width: int | None = None) -> str:
    """Return the primary measures of runs as text, the objective of the sweep first.

    There is a column per model, or where the width has no room for these, a row per model and the measures that fit.
    """
    page = io.StringIO()
    console = console_for(page, width)
    models, measures = models_of(folder, runs), primary(runs, objective)
    drawn = by_measure(models, measures, UNLIMITED)
    if width_of(console, drawn) > console.width:
        drawn = by_measure(models, measures, NARROW)
    if width_of(console, drawn) > console.width:
        while width_of(console, drawn := by_model(models, measures)) > console.width and len(measures) > 1:
            measures.popitem()
    console.print(in_words(runs, models), "", style="bold", markup=False, sep="\n")
    console.print(drawn)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def in_words(runs: list[EndedRun], models: list[Model]) -> str:
    """Say how many runs a table shows, and what its intervals are over."""
    seeds = list(dict.fromkeys(run.values["seed"] for run in runs if "seed" in run.values))
    count = f"{len(runs)} runs" if runs[1:] else "1 run"
    count += f", seeds {', '.join(seeds)}" if seeds[1:] else ""
    several = models[-1].rows[1:]
    return f"{count}: {'means' if several else 'values'} and 95% intervals over {'seeds' if several else 'prompts'}"


def primary(runs: list[EndedRun], objective: str | None) -> dict[str, bool]:
    """Return the primary measures of the runs after the objective; the value says whether one is shown in percent."""
    rows = [row for run in runs for row in run.rows.values()]
    named = sorted((row for row in rows if row.get("primary", 0) is not None), key=lambda row: row.get("primary") or 0)
    return {row["name"]: is_share(row) for row in [*(row for row in rows if row["name"] == objective), *named]}


def models_of(folder: Path, runs: list[EndedRun]) -> list[Model]:
    """Return the base model and the stage before the last, then the last stage with each of the settings.

    Runs that differ in their seed alone are one model. What differs between runs of one seed is left out.
    """
    groups: dict[tuple[tuple[str, str], ...], list[EndedRun]] = {}
    for run in runs:
        groups.setdefault(run.settings, []).append(run)
    chain = chain_of(folder / str(runs[0].number))
    sources: list[tuple[str, Literal["before", "previous"]]] = [(chain[0], "before"), (chain[-2:][0], "previous")]
    models = [Model(name, "", rows) for name, source in sources[: len(chain) - 1] if (rows := shared(runs, source))]
    for settings, members in groups.items():
        named = "\n".join(f"{name.rpartition('.')[2]}={value}" for name, value in settings)
        stands_for = f"{len(members)} seeds" if members[1:] else f"run {members[0].number}"
        models.append(Model(named or chain[-1], stands_for, [dict(run.rows) for run in members]))
    return models


def chain_of(run: Path) -> list[str]:
    """Return the names of the models of a run that are compared with each other."""
    tables = side_by_side(read_stages(run))
    return tables[0].models if tables else []


def shared(runs: list[EndedRun], source: Literal["before", "previous"]) -> list[dict[str, IntervalRecord]]:
    """Return the measurements of the model that the runs came from, by seed; empty where runs of one seed differ."""
    by_seed: dict[str, dict[str, IntervalRecord]] = {}
    for run in runs:
        rows = {name: row[source] for name, row in run.rows.items() if source in row}
        if by_seed.setdefault(run.values.get("seed", ""), rows) != rows:
            return []
    return [*by_seed.values()]


def by_measure(models: list[Model], measures: dict[str, bool], width: int) -> "TerminalTable":
    """Build a table with a row per measure, its name in lines of `width` letters, and a column per model."""
    drawn = empty_table("measure", [head(model) for model in models])
    for name, share in measures.items():
        drawn.add_row(in_lines(name, width), *(cell(model, name, share) for model in models))
    return drawn


def by_model(models: list[Model], measures: dict[str, bool]) -> "TerminalTable":
    """Build a table with a row per model and a column per measure."""
    drawn = empty_table("", [in_lines(name, NARROW) for name in measures])
    for model in models:
        drawn.add_row(head(model), *(cell(model, name, share) for name, share in measures.items()))
    return drawn


def empty_table(first: str, columns: "Sequence[str | Text]") -> "TerminalTable":
    """Build a table for the terminal without rows."""
    from rich import box
    from rich.table import Table as TerminalTable

    drawn = TerminalTable(first, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        drawn.add_column(column, justify="right", no_wrap=True)
    return drawn


def head(model: Model) -> "Text":
    """Return the name of a model over the runs that it stands for."""
    from rich.text import Text

    return Text.assemble(model.name, (f"\n{model.runs}", "dim"))


def cell(model: Model, name: str, share: bool) -> "Text":
    """Format a measure of a model: its mean over Student's interval over seeds; of one run, over that over prompts."""
    from rich.text import Text

    rows = [row[name] for row in model.rows if name in row]
    if not rows:
        return Text("")
    shown = rows[0]
    if rows[1:]:
        mean, low, high = student([row["value"] for row in rows], CONFIDENCE)
        shown = {"value": mean, "low": low, "high": high}
    value = value_text(shown["value"], share).replace("-", "−")
    return Text.assemble(value, (f"\n{interval_text(shown, share)}", "dim"))
