"""Runs beside each other: their measures, the front of helpful against harmless, and the answers that flipped."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from alignlab.dashboard.run_page import finished_stages, readable, samples_of, with_samples
from alignlab.dashboard.runs import Run
from alignlab.reports.charts import HEIGHT, WIDTH, axes, scale
from alignlab.reports.measure_names import label
from alignlab.reports.run_results import Cell, Stage, cell, is_share

HELPFUL = ("gold/helpful", "reward/held_out", "gold/score", "reward/mean")  # the first that all runs have
HARMFUL = ("gold/harmful_compliance", "refusal/harmful_answered", "toxicity/rate")
PAGE_SIZE = 12  # flipped answers
LEFT, RIGHT, TOP, BOTTOM = 46.0, 12.0, 12.0, 26.0
BELOW = 14.0  # of a dot's centre is the baseline of its number

Rows = list[dict[str, Any]]


class Point(NamedTuple):
    """A run's last model in the plane of harm and help; `best` where no other run beats it in both."""

    run: Run
    harmful: float
    helpful: float
    best: bool


class Flip(NamedTuple):
    """A prompt whose answer two models give differently: the answers and their scores."""

    kind: str
    prompt: list[dict[str, Any]]
    first: str
    second: str
    before: float
    after: float
    verdict: str  # better or worse; changed where the measure has no direction


def columns(runs: Sequence[Run]) -> list[tuple[str, str, str, list[Cell | None]]]:
    """Return name, label, better and the cells of each measure of any run's last model, in the order of the runs."""
    measured = [last_measurements(run) for run in runs]
    names = dict.fromkeys(name for rows in measured for name in rows)
    table = []
    for name in names:
        rows = [rows.get(name) for rows in measured]
        better = next((str(row.get("better", "neither")) for row in rows if row), "neither")
        cells = [readable(None, cell_of, row) if row else None for row in rows]
        if any(cells):
            table.append((name, label(name), better, cells))
    return table


def last_measurements(run: Run) -> dict[str, Any]:
    """Return the measurements of a run's last finished stage, by name."""
    stages = finished_stages(run)
    return readable({}, measurements_of, stages[-1]) if stages else {}


def measurements_of(stage: Stage) -> dict[str, Any]:
    """Return the measurements of a stage, by name."""
    return dict(stage.measurements)


def cell_of(row: Any) -> Cell:
    """Format a measurement and its interval."""
    return cell(row, is_share(row), None)


def axes_of(runs: Sequence[Run]) -> tuple[str, str] | None:
    """Return the measures of harm and of help that most runs have; None where no run has both."""
    counts = {
        (harm, help_): sum(harm in run.values and help_ in run.values for run in runs)
        for harm in HARMFUL
        for help_ in HELPFUL
    }
    best = max(counts, key=lambda pair: counts[pair])
    return best if counts[best] else None


def points(runs: Sequence[Run], harm: str, help_: str) -> list[Point]:
    """Return the runs in the plane; a run is best where none has less harm and no less help, or more help and no more
    harm.
    """
    placed = [
        (run, run.values[harm].value, run.values[help_].value) for run in runs if {harm, help_} <= set(run.values)
    ]
    return [
        Point(run, x, y, not any(a <= x and b >= y and (a, b) != (x, y) for _, a, b in placed)) for run, x, y in placed
    ]


def front(shown: Sequence[Point], harm: str, help_: str, numbered: Sequence[Run] = ()) -> Markup:
    """Draw runs as dots, those of the Pareto front joined by a line; each dot has its run's name as a tooltip.

    The dots of `numbered` runs have their numbers below them, from 1.
    """
    numbers = {run.name: number for number, run in enumerate(numbered, 1)}
    percent = [any(point.run.values[name].share for point in shown) for name in (harm, help_)]
    x_times, y_times = (100 if share else 1 for share in percent)
    placed = [(point, x_times * point.harmful, y_times * point.helpful) for point in shown]
    x_scale = scale(min(x for _, x, _ in placed), max(x for _, x, _ in placed), LEFT, WIDTH - RIGHT, 4)
    y_scale = scale(min(y for _, _, y in placed), max(y for _, _, y in placed), HEIGHT - BOTTOM, TOP, 4)
    best = sorted({(x, y) for point, x, y in placed if point.best})
    line = " ".join(f"{x_scale.pixel(x):.1f},{y_scale.pixel(y):.1f}" for x, y in best)
    dots = Markup("").join(
        Markup('<circle class="{} {}" cx="{:.1f}" cy="{:.1f}" r="4"><title>{}</title></circle>').format(
            "dot" if point.best else "ring",
            "c2" if point.best else "c0",
            x_scale.pixel(x),
            y_scale.pixel(y),
            f"{point.run.title}: {label(harm)} {point.run.values[harm].text}, "
            f"{label(help_)} {point.run.values[help_].text}",
        )
        for point, x, y in placed
    )
    written = Markup("").join(
        Markup('<text class="tick" text-anchor="middle" x="{:.1f}" y="{:.1f}">{}</text>').format(
            x_scale.pixel(x), y_scale.pixel(y) + BELOW, numbers[point.run.name]
        )
        for point, x, y in placed
        if point.run.name in numbers
    )
    units = [", in %" * share for share in percent]
    title = f"{label(help_)}{units[1] * (units[0] != units[1])} over {label(harm)}{units[0]}"
    return Markup(
        '<figure class="chart"><figcaption>{}</figcaption><svg viewBox="0 0 {:g} {:g}" role="img" '
        'aria-label="{}">{}<polyline class="line c2" points="{}"/>{}</svg></figure>'
    ).format(title, WIDTH, HEIGHT, title, axes(x_scale, y_scale), line, dots + written)


def measures_of(first: Rows, second: Rows) -> list[str]:
    """Return the measures that completions of both runs have."""
    each = [{name for row in rows[:200] for name in row["scores"]} for rows in (first, second)]
    return sorted(name for name in each[0] & each[1] if name.count("/") == 1)


def last_samples(run: Run) -> Rows:
    """Return the completions of the last stage that has any."""
    stages = with_samples(run)
    return samples_of(run, stages[-1]) if stages else []


def flips(first: Rows, second: Rows, measure: str, direction: str) -> list[Flip]:
    """Return the prompts whose value of a measure differs between two models' completions; worse ones first.

    `direction` says which values of the measure are better: higher, lower, or anything else for neither.
    """
    earlier = {row.get("id"): row for row in first}
    found = []
    for row in second:
        other = earlier.get(row.get("id"))
        if other is None:
            continue
        before, after = other["scores"].get(measure), row["scores"].get(measure)
        if not (isinstance(before, int | float) and isinstance(after, int | float)) or before == after:
            continue
        verdict = verdict_of(after - before, direction)
        texts = other["after"]["completion"], row["after"]["completion"]
        found.append(Flip(str(row.get("kind", "")), row["prompt"], *texts, float(before), float(after), verdict))
    order = {"worse": 0, "changed": 1, "better": 2}
    return sorted(found, key=lambda flip: (order[flip.verdict], -abs(flip.after - flip.before)))


def verdict_of(change: float, direction: str) -> str:
    """Return what a change of a measure means."""
    if direction not in ("higher", "lower"):
        return "changed"
    return "better" if (change > 0) == (direction == "higher") else "worse"


def better_of(runs: Sequence[Run], measure: str) -> str:
    """Return which values of a measure are better by the first run that says so; empty where none does."""
    rows = (last_measurements(run).get(measure) for run in runs)
    return next((str(row["better"]) for row in rows if row and "better" in row), "")
