"""A sweep in one table: the mean of each measure over seeds, and its spread.

Runs that differ in their seed alone are one group. Runs that differ in other settings are separate groups, named after
those settings. A run without a result is listed as missing.
"""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from alignlab.errors import failure
from alignlab.evaluation.statistics import student
from alignlab.pipeline.run_folder import is_finished, read_result, read_settings, write_json
from alignlab.pipeline.sweep_folder import TABLE, TABLE_ROWS, run_folders
from alignlab.reports.run_results import number, read_stages
from alignlab.runtime.files import write_text

NOT_A_SETTING = {"seed", "defaults"}
CONFIDENCE = 0.95


class SweptRun(NamedTuple):
    """One run of a sweep: its folder's name, its seed, its settings by dotted name, and values by (model, measure)."""

    name: str
    seed: int
    settings: dict[str, str]
    values: dict[tuple[str, str], float]


class Spread(TypedDict):
    """A measure of a model over the runs of a group; interval and standard deviation need two runs."""

    group: str
    model: str
    name: str
    seeds: int
    mean: float
    low: float | None
    high: float | None
    sd: float | None
    min: float
    median: float
    max: float
    values: dict[int, float]  # by seed


def sweep_table(folder: Path) -> str:
    """Write the table of a sweep as Markdown and as JSON into its folder; return it as text."""
    runs, missing = read_runs(folder)
    if not runs:
        raise failure(str(folder), "holds no finished run", "give the folder of a sweep")
    groups = group_runs(runs)
    rows = [row for name, members in groups.items() for row in spreads(name, members)]
    write_json(folder / TABLE_ROWS, {"missing": missing, "rows": rows})
    text = "\n".join(markdown(groups, rows, missing))
    write_text(folder / TABLE, text + "\n")
    return text


def read_runs(folder: Path) -> tuple[list[SweptRun], list[str]]:
    """Read the finished runs of a sweep; also return the names of the others."""
    places = run_folders(folder)
    finished = [place for place in places if is_finished(place)]
    return [read_run(place) for place in finished], [place.name for place in places if place not in finished]


def read_run(folder: Path) -> SweptRun:
    """Read one run: the values of the base model and of each stage."""
    result = read_result(folder)
    values = {("base", row["name"]): row["before"]["value"] for row in result["measurements"] if "before" in row}
    for stage in read_stages(folder):
        values |= {(stage.name, row["name"]): row["value"] for row in stage.result["measurements"]}
    return SweptRun(folder.name, result["seed"], dict(leaves(read_settings(folder))), values)


def choices(folder: Path) -> dict[str, str]:
    """Return the options that a run was composed from, by config group."""
    groups = [entry for entry in read_settings(folder).get("defaults", ()) if isinstance(entry, dict)]
    return {key.removeprefix("override /"): value for entry in groups for key, value in entry.items()}


def leaves(tree: Any, above: str = "") -> Iterator[tuple[str, str]]:
    """Yield the settings of a tree by dotted name, as text."""
    for key, value in tree.items():
        if not above and key in NOT_A_SETTING:
            continue
        if isinstance(value, dict):
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", json.dumps(value, default=str)


def group_runs(runs: list[SweptRun]) -> dict[str, list[SweptRun]]:
    """Group runs by the settings that differ within the sweep, except the seed."""
    names = sorted({name for run in runs for name in run.settings})
    differing = [name for name in names if len({run.settings.get(name) for run in runs}) > 1]
    groups: dict[str, list[SweptRun]] = {}
    for run in runs:
        groups.setdefault(", ".join(f"{name}={run.settings.get(name)}" for name in differing), []).append(run)
    return groups


def spreads(group: str, runs: list[SweptRun]) -> Iterator[Spread]:
    """Yield each measure of each model with its mean, its interval over seeds (Student's t), and its spread."""
    for model, name in dict.fromkeys(key for run in runs for key in run.values):
        by_seed = {run.seed: run.values[model, name] for run in runs if (model, name) in run.values}
        values = list(by_seed.values())
        several = len(values) > 1
        mean, low, high = student(values, CONFIDENCE) if several else (values[0], None, None)
        yield {
            "group": group,
            "model": model,
            "name": name,
            "seeds": len(values),
            "mean": mean,
            "low": low,
            "high": high,
            "sd": statistics.stdev(values) if several else None,
            "min": min(values),
            "median": statistics.median(values),
            "max": max(values),
            "values": by_seed,
        }


def markdown(groups: dict[str, list[SweptRun]], rows: list[Spread], missing: list[str]) -> Iterator[str]:
    """Yield the lines of a Markdown table per group."""
    for group, runs in groups.items():
        seeds = ", ".join(str(run.seed) for run in runs)
        count = f"{len(runs)} runs, seeds {seeds}" if len(runs) > 1 else f"1 run, seed {seeds}"
        yield f"{group + ': ' if group else ''}{count}"
        yield ""
        yield "| measure | model | mean | 95% over seeds | sd | min | median | max |"
        yield "|---|---|--:|--:|--:|--:|--:|--:|"
        order = {name: place for place, name in enumerate(dict.fromkeys(row["name"] for row in rows))}
        for row in sorted((row for row in rows if row["group"] == group), key=lambda row: order[row["name"]]):
            yield f"| {' | '.join(cells(row))} |"
        yield ""
    if missing:
        yield f"without a result: {', '.join(missing)}"


def cells(row: Spread) -> list[str]:
    """Format the cells of a row."""

    def show(value: float | None) -> str:
        return "" if value is None else number(value, share=False).replace("-", "−")

    interval = "" if row["low"] is None else f"{show(row['low'])} to {show(row['high'])}"
    figures = [show(value) for value in (row["sd"], row["min"], row["median"], row["max"])]
    return [row["name"], row["model"], show(row["mean"]), interval, *figures]
