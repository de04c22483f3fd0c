"""The front of two measures: every point of a soup, the baselines, and which of them no other beats on both."""

from collections.abc import Collection, Sequence
from pathlib import Path

from alignlab.errors import failure
from alignlab.evaluation.scores import Measurement
from alignlab.pipeline.run_folder import read_settings
from alignlab.reports.charts import Mark, Series, curves
from alignlab.reports.measure_names import label
from alignlab.reports.run_results import cell, is_share, read_stages
from alignlab.reports.templates import render
from alignlab.runtime.files import write_text

FRONT_PAGE = "front.html"


def on_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return for each point whether no other is at least as high on both axes and higher on one."""
    return [
        not any(all(a >= b for a, b in zip(other, point, strict=True)) and other != point for other in points)
        for point in points
    ]


def write_front(folder: Path, axes: tuple[str, str], baselines: Collection[str] = ()) -> Path:
    """Write the page of a comparison's models on two measures; return its path. Baselines are no points of the soup."""
    stages = read_stages(folder)
    for name in axes:
        if name not in stages[0].measurements:
            raise failure("task.axes", f"{name} was not measured", f"there is {', '.join(stages[0].measurements)}")
    rows = {stage.name: tuple(stage.measurements[name] for name in axes) for stage in stages}
    models = read_settings(folder).get("task", {}).get("models", ["the first model", "the second one"])
    write_text(folder / FRONT_PAGE, page(rows, models, baselines))
    return folder / FRONT_PAGE


def page(rows: dict[str, tuple[Measurement, ...]], models: Sequence[str], baselines: Collection[str]) -> str:
    """Build the page: a chart, whose filled points are the front, and a table with intervals."""
    front = dict(zip(rows, on_front([better_upwards(pair) for pair in rows.values()]), strict=True))
    words = [label(row["name"]) for row in next(iter(rows.values()))]
    heads = [f"{label(row['name'])} ({row['better']} is better)" for row in next(iter(rows.values()))]
    marks = {name: Mark(place(x), place(y), name, front[name], labelled=True) for name, (x, y) in rows.items()}
    soup = series("interpolated", [mark for name, mark in marks.items() if name not in baselines])
    return render(
        "front.html",
        title=f"{words[1]} over {words[0]}: {', '.join(name for name in rows if front[name])} on the front",
        models=models,
        baselines=list(baselines),
        chart=curves(
            f"{words[1]} over {words[0]}", [soup, *(series(name, [marks[name]]) for name in baselines)], words[0]
        ),
        head=("model", *heads, "on the front"),
        rows=[[name, *map(shown, pair), "yes" if front[name] else "no"] for name, pair in rows.items()],
    )


def series(name: str, marks: Sequence[Mark]) -> Series:
    """Return marked points as a curve."""
    return Series(name, [(mark.step, mark.value) for mark in marks], tuple(marks))


def shown(row: Measurement) -> str:
    """Return a value with its interval."""
    text = cell(row, is_share(row), None)
    return f"{text.text} ({text.interval})"


def place(row: Measurement) -> float:
    """Return a value as the chart shows it; a share is in percent, as in the table."""
    return (100 if is_share(row) else 1) * float(row["value"])


def better_upwards(pair: Sequence[Measurement]) -> tuple[float, float]:
    """Return two values so that higher is better on both."""
    x, y = (-row["value"] if row["better"] == "lower" else row["value"] for row in pair)
    return x, y
