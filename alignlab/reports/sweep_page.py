"""The page of a sweep: its runs with their intervals, the effect of each setting, and the command of the best run.

The drawing is written as PNG and as SVG. The page embeds it and loads nothing from the network.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignlab.evaluation.statistics import student
from alignlab.pipeline.sweep_folder import DRAWING, PAGE
from alignlab.reports.measure_names import label
from alignlab.reports.run_results import CONFIDENCE, value_text
from alignlab.reports.sweep_ranking import Place, Ranking, sentences, unclear, without_value
from alignlab.reports.templates import render
from alignlab.runtime.files import write_text

BEST, CLOSE, OTHER = "#1a7f5a", "#4a78b5", "#9a9a9a"  # the best, those not clearly worse, the rest
MAX_PANELS = 5  # settings that get a panel each


def write_page(folder: Path, ranking: Ranking, command: str) -> Path:
    """Write the drawing and the page into a sweep's folder; return the page's path."""
    picture = draw(folder, ranking)
    write_text(folder / PAGE, page(folder.name, ranking, command, picture))
    return folder / PAGE


def draw(folder: Path, ranking: Ranking) -> bytes:
    """Draw the places with their intervals, and the measure over each setting; return the PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name, _ in ranking.places[0].settings if name != "seed"][:MAX_PANELS]
    height = max(3.2, 0.28 * len(ranking.places) + 1.2)
    figure, axes = pyplot.subplots(
        1, 1 + len(names), figsize=(4.2 + 3.2 * len(names), height), squeeze=False, layout="constrained"
    )
    colours = colours_of(ranking)
    list_places(axes[0][0], ranking, colours)
    for axis, name in zip(axes[0][1:], names, strict=True):
        draw_setting(axis, name, ranking, colours)
    for kind in ("svg", "png"):
        figure.savefig(folder / f"{DRAWING}.{kind}", dpi=110)
    pyplot.close(figure)
    return (folder / f"{DRAWING}.png").read_bytes()


def colours_of(ranking: Ranking) -> list[str]:
    """Return a colour per place: the best, those not clearly worse, the rest; one for all where nothing is ranked."""
    if not ranking.ranked:
        return [CLOSE] * len(ranking.places)
    near = unclear(ranking)
    return [BEST, *(CLOSE if place in near else OTHER for place in ranking.places[1:])]


def whisker(axis: Any, position: float, place: Place, colour: str, vertical: bool) -> None:
    """Draw a value as a dot on its interval."""
    ends = [[place.value - place.low], [place.high - place.value]]
    style = {"fmt": "o", "color": colour, "capsize": 2, "markersize": 4, "linewidth": 1.2}
    if vertical:
        axis.errorbar([position], [place.value], yerr=ends, **style)
    else:
        axis.errorbar([place.value], [position], xerr=ends, **style)


def list_places(axis: Any, ranking: Ranking, colours: Sequence[str]) -> None:
    """Draw the places one below the other, the best on top."""
    for row, (place, colour) in enumerate(zip(ranking.places, colours, strict=True)):
        whisker(axis, -row, place, colour, vertical=False)
    seeds = [dict(place.settings).get("seed") for place in ranking.places]
    labels = [f"seed {seed}" if seed else place.name for seed, place in zip(seeds, ranking.places, strict=True)]
    axis.set_yticks([-row for row in range(len(labels))], labels, fontsize=8)
    axis.set_xlabel(f"{ranking.measure} (95%)")
    order = "best first" if ranking.ranked else "in the order of the command"
    axis.set_title(order + (f"; {len(ranking.others)} more without a value" if ranking.others else ""), fontsize=9)
    axis.grid(axis="x", alpha=0.3)


def draw_setting(axis: Any, name: str, ranking: Ranking, colours: Sequence[str]) -> None:
    """Draw the measure over one setting; on a logarithmic scale where its values span more than a factor of ten."""
    values = [dict(place.settings)[name] for place in ranking.places]
    numbers = [number for value in values if (number := as_number(value)) is not None]
    if len(numbers) == len(values):
        positions = numbers
        if min(numbers) > 0 and max(numbers) > 10 * min(numbers):
            axis.set_xscale("log")
    else:
        distinct = list(dict.fromkeys(values))
        positions = [float(distinct.index(value)) for value in values]
        axis.set_xticks(range(len(distinct)), distinct, fontsize=8)
    for position, place, colour in zip(positions, ranking.places, colours, strict=True):
        whisker(axis, position, place, colour, vertical=True)
    axis.set_xlabel(name)
    axis.grid(alpha=0.3)


def as_number(value: str) -> float | None:
    """Return a setting's value as a number; None where it is not one."""
    try:
        return float(value)
    except ValueError:
        return None


def page(title: str, ranking: Ranking, command: str, picture: bytes) -> str:
    """Build the page; `title` is the name of the sweep's folder."""
    conclusions = conclusions_of(ranking)
    return render(
        PAGE,
        measure=ranking.measure,
        folder=title,
        runs=sum(len(place.runs) for place in ranking.places) + len(ranking.others),
        title=conclusions[0] if conclusions else in_words(ranking),
        verdict=ranking.verdict,
        conclusions=conclusions[1:],
        drawing=base64.b64encode(picture).decode(),
        head=head_of(ranking),
        rows=rows_of(ranking),
        best_command=ranking.command,
        others=[*map(without_value, ranking.others)],
        command=command,
    )


def in_words(ranking: Ranking) -> str:
    """Say what a sweep without an objective shows: the mean over seeds, or the settings."""
    name = label(ranking.measure)[0].upper() + label(ranking.measure)[1:]
    places, is_share = ranking.places, ranking.measure in ranking.places[0].shares
    if not places[1:] or any(set(dict(place.settings)) != {"seed"} for place in places):
        return f"{name} of {len(places)} setting{'s' * (len(places) > 1)}, in the order of the command"
    interval = student([place.value for place in places], CONFIDENCE)
    mean, low, high = (value_text(value, is_share).replace("-", "−") for value in interval)
    return f"{name}: {mean} on average over {len(places)} seeds (95% interval {low} to {high})"


def conclusions_of(ranking: Ranking) -> list[str]:
    """Return the conclusions of a ranking; its command has a place of its own on the page."""
    return [one for one in sentences(ranking) if ranking.command not in one]


def head_of(ranking: Ranking) -> list[str]:
    """Return the names of the columns of the table."""
    first = ranking.places[0]
    return ["run", *(name for name, _ in first.settings), label(ranking.measure), "95%", *map(label, first.beside)]


def rows_of(ranking: Ranking) -> list[list[str]]:
    """Return the cells of each place; shares are in percent."""
    return [cells(place, ranking.places[0], ranking.measure) for place in ranking.places]


def cells(place: Place, first: Place, measure: str) -> list[str]:
    """Return the cells of a place, in the columns of the first one."""

    def shown(name: str, value: float) -> str:
        return value_text(value, name in place.shares).replace("-", "−")

    beside = [shown(name, place.beside[name]) if name in place.beside else "" for name in first.beside]
    interval = f"{shown(measure, place.low)} to {shown(measure, place.high)}"
    settings = dict(place.settings)
    runs = ", ".join(map(str, place.runs))
    return [runs, *(settings[name] for name, _ in first.settings), shown(measure, place.value), interval, *beside]
