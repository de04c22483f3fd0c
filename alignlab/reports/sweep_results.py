"""A sweep in one table: what several runs of the same experiment agree on, and how far they are apart.

Runs that differ in their seed alone are one group; runs that differ in other settings are kept apart, and the group
is named after those settings. A run that has no result is counted as missing, not left out in silence.
"""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.errors import failure
from alignlab.evaluation.statistics import student
from alignlab.pipeline.run_folder import is_finished, read_result, read_settings, write_json
from alignlab.pipeline.sweep_folder import TABLE, TABLE_ROWS, run_folders
from alignlab.reports.run_results import number, read_stages
from alignlab.runtime.files import write_text

NOT_A_SETTING = {"seed", "defaults"}
CONFIDENCE = 0.95


class Job(NamedTuple):
    """One run of a sweep: its place, its seed, its settings by dotted name, and values by (model, measure)."""

    name: str
    seed: int
    settings: dict[str, str]
    values: dict[tuple[str, str], float]


def sweep_table(folder: Path) -> str:
    """Write `sweep.json` and `sweep.md` into a sweep's folder; gives the table as text."""
    jobs, missing = read_jobs(folder)
    if not jobs:
        raise failure(str(folder), "holds no finished run", "give the folder of a sweep")
    groups = grouped(jobs)
    rows = [row for name, members in groups.items() for row in spread(name, members)]
    write_json(folder / TABLE_ROWS, {"missing": missing, "rows": rows})
    text = "\n".join(markdown(groups, rows, missing))
    write_text(folder / TABLE, text + "\n")
    return text


def read_jobs(folder: Path) -> tuple[list[Job], list[str]]:
    """The finished runs in a folder, and the names of those that are not."""
    places = run_folders(folder)
    finished = [place for place in places if is_finished(place)]
    return [read_job(place) for place in finished], [place.name for place in places if place not in finished]


def read_job(folder: Path) -> Job:
    """One run: the values of the base model and of each stage."""
    result = read_result(folder)
    values = {("base", row["name"]): row["before"]["value"] for row in result["measurements"] if "before" in row}
    for stage in read_stages(folder):
        values |= {(stage.name, row["name"]): row["value"] for row in stage.result["measurements"]}
    return Job(folder.name, result["seed"], dict(leaves(read_settings(folder))), values)


def choices(folder: Path) -> dict[str, str]:
    """The options that a run was made from, by group, as its `config.yaml` names them."""
    named = [one for one in read_settings(folder).get("defaults", ()) if isinstance(one, dict)]
    return {key.removeprefix("override /"): value for one in named for key, value in one.items()}


def leaves(tree: Any, above: str = "") -> Iterator[tuple[str, str]]:
    """The settings of a tree as text, by dotted name."""
    for key, value in tree.items():
        if not above and key in NOT_A_SETTING:
            continue
        if isinstance(value, dict):
            yield from leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", json.dumps(value, default=str)


def grouped(jobs: list[Job]) -> dict[str, list[Job]]:
    """Runs by the settings in which the runs of the sweep differ, the seed apart."""
    names = sorted({name for job in jobs for name in job.settings})
    differing = [name for name in names if len({job.settings.get(name) for job in jobs}) > 1]
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(", ".join(f"{name}={job.settings.get(name)}" for name in differing), []).append(job)
    return groups


def spread(group: str, jobs: list[Job]) -> Iterator[dict[str, Any]]:
    """A row for each model and measure: mean, interval over seeds (Student's t), standard deviation and range."""
    for model, name in dict.fromkeys(key for job in jobs for key in job.values):
        found = {job.seed: job.values[model, name] for job in jobs if (model, name) in job.values}
        values = list(found.values())
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
            "values": found,
        }


def markdown(groups: dict[str, list[Job]], rows: list[dict[str, Any]], missing: list[str]) -> Iterator[str]:
    """The rows as Markdown, a table for each group."""
    for group, jobs in groups.items():
        seeds = ", ".join(str(job.seed) for job in jobs)
        count = f"{len(jobs)} runs, seeds {seeds}" if len(jobs) > 1 else f"1 run, seed {seeds}"
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


def cells(row: dict[str, Any]) -> list[str]:
    """A row's cells as text."""

    def show(value: float | None) -> str:
        return "" if value is None else number(value, share=False).replace("-", "−")

    interval = "" if row["low"] is None else f"{show(row['low'])} to {show(row['high'])}"
    figures = [show(row[key]) for key in ("sd", "min", "median", "max")]
    return [row["name"], row["model"], show(row["mean"]), interval, *figures]
