"""The front of two measures: every point of a soup, and those that no other point beats on both."""

from collections.abc import Sequence
from pathlib import Path

from alignlab.errors import failure
from alignlab.evaluation.scores import Measurement
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


def write_front(folder: Path, axes: tuple[str, str]) -> Path:
    """Write the page of a comparison's models on two measures; return its path."""
    stages = read_stages(folder)
    for name in axes:
        if name not in stages[0].measurements:
            raise failure("task.axes", f"{name} was not measured", f"there is {', '.join(stages[0].measurements)}")
    rows = {stage.name: tuple(stage.measurements[name] for name in axes) for stage in stages}
    write_text(folder / FRONT_PAGE, page(rows, axes))
    return folder / FRONT_PAGE


def page(rows: dict[str, tuple[Measurement, ...]], axes: tuple[str, str]) -> str:
    """Build the page: a chart, whose filled points are the front, and a table with intervals."""
    front = dict(zip(rows, on_front([better_upwards(pair) for pair in rows.values()]), strict=True))
    points = [(float(x["value"]), float(y["value"])) for x, y in rows.values()]
    marks = tuple(Mark(*point, name, front[name]) for name, point in zip(rows, points, strict=True))
    words = [label(name) for name in axes]
    series = [Series("share of the second model", points, marks)]
    return render(
        "front.html",
        words=words,
        chart=curves(f"{words[1]} over {words[0]}", series, words[0]),
        head=("share of the second model", *words, "on the front"),
        rows=[[name, *map(shown, pair), "yes" if front[name] else "no"] for name, pair in rows.items()],
    )


def shown(row: Measurement) -> str:
    """Return a value with its interval."""
    text = cell(row, is_share(row), None)
    return f"{text.text} ({text.interval})"


def better_upwards(pair: Sequence[Measurement]) -> tuple[float, float]:
    """Return two values so that higher is better on both."""
    x, y = (-row["value"] if row["better"] == "lower" else row["value"] for row in pair)
    return x, y
