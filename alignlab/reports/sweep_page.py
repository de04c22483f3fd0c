"""The page of a sweep: its runs with their intervals, what each setting did, and the command for the best.

The drawing is one picture, `sweep.png` and `sweep.svg`; `sweep.html` holds it whole and asks nothing of the network.
"""

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignlab.pipeline.sweep_folder import DRAWING, PAGE
from alignlab.reports.sweep_ranking import Place, Ranking, sentences, table, unclear, without_value
from alignlab.runtime.files import write_text

BEST, CLOSE, OTHER = "#1a7f5a", "#4a78b5", "#9a9a9a"  # the best, those not clearly worse, the rest
MOST_PANELS = 5


def write_page(folder: Path, found: Ranking, command: str) -> Path:
    """Write the drawing and the page into a sweep's folder; gives the page's path."""
    picture = draw(folder, found)
    write_text(folder / PAGE, page(folder.name, found, command, picture))
    return folder / PAGE


def draw(folder: Path, found: Ranking) -> bytes:
    """Draw the places with their intervals, and the measure over each setting; gives the picture as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name, _ in found.places[0].settings if name != "seed"][:MOST_PANELS]
    height = max(3.2, 0.28 * len(found.places) + 1.2)
    figure, axes = pyplot.subplots(
        1, 1 + len(names), figsize=(4.2 + 3.2 * len(names), height), squeeze=False, layout="constrained"
    )
    colours = coloured(found)
    listed(axes[0][0], found, colours)
    for axis, name in zip(axes[0][1:], names, strict=True):
        over(axis, name, found, colours)
    for kind in ("svg", "png"):
        figure.savefig(folder / f"{DRAWING}.{kind}", dpi=110)
    pyplot.close(figure)
    return (folder / f"{DRAWING}.png").read_bytes()


def coloured(found: Ranking) -> list[str]:
    """A colour for each place: the best, what is not clearly worse, the rest; one for all where nothing is ranked."""
    if not found.ranked:
        return [CLOSE] * len(found.places)
    near = unclear(found)
    return [BEST, *(CLOSE if place in near else OTHER for place in found.places[1:])]


def whisker(axis: Any, across: float, place: Place, colour: str, upright: bool) -> None:
    """A value as a dot on its interval."""
    ends = [[place.value - place.low], [place.high - place.value]]
    style = {"fmt": "o", "color": colour, "capsize": 2, "markersize": 4, "linewidth": 1.2}
    if upright:
        axis.errorbar([across], [place.value], yerr=ends, **style)
    else:
        axis.errorbar([place.value], [across], xerr=ends, **style)


def listed(axis: Any, found: Ranking, colours: Sequence[str]) -> None:
    """The places one under the other, the best on top."""
    for row, (place, colour) in enumerate(zip(found.places, colours, strict=True)):
        whisker(axis, -row, place, colour, upright=False)
    seeds = [dict(place.settings).get("seed") for place in found.places]
    labels = [f"seed {seed}" if seed else place.name for seed, place in zip(seeds, found.places, strict=True)]
    axis.set_yticks([-row for row in range(len(labels))], labels, fontsize=8)
    axis.set_xlabel(f"{found.measure} (95%)")
    order = "best first" if found.ranked else "in the order of the command"
    axis.set_title(order + (f"; {len(found.others)} more without a value" if found.others else ""), fontsize=9)
    axis.grid(axis="x", alpha=0.3)


def over(axis: Any, name: str, found: Ranking, colours: Sequence[str]) -> None:
    """The measure over one setting; on a logarithmic scale where its values span more than a factor of ten."""
    given = [dict(place.settings)[name] for place in found.places]
    numbers = [number for value in given if (number := as_number(value)) is not None]
    if len(numbers) == len(given):
        across = numbers
        if min(numbers) > 0 and max(numbers) > 10 * min(numbers):
            axis.set_xscale("log")
    else:
        kinds = list(dict.fromkeys(given))
        across = [float(kinds.index(value)) for value in given]
        axis.set_xticks(range(len(kinds)), kinds, fontsize=8)
    for value, place, colour in zip(across, found.places, colours, strict=True):
        whisker(axis, value, place, colour, upright=True)
    axis.set_xlabel(name)
    axis.grid(alpha=0.3)


def as_number(value: str) -> float | None:
    """A setting's value as a number, if it is one."""
    try:
        return float(value)
    except ValueError:
        return None


def page(title: str, found: Ranking, command: str, picture: bytes) -> str:
    """The page."""
    said = tagged("p", list(sentences(found)))
    others = f"<h2>Without a value</h2><ul>{tagged('li', [*map(without_value, found.others)])}</ul>"
    drawn = base64.b64encode(picture).decode()
    alt = html.escape(f"{found.measure} of every run with its interval, and over each setting")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"{STYLE}</head><body><h1>{html.escape(title)}</h1><pre>{html.escape(command)}</pre>{said}"
        f'<img alt="{alt}" src="data:image/png;base64,{drawn}">{shown(found)}'
        f"{others if found.others else ''}</body></html>\n"
    )


def shown(found: Ranking) -> str:
    """The places as a table."""
    head, rows = table(found)
    lines = [tagged("th", head), *(tagged("td", row) for row in rows)]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def tagged(tag: str, texts: Sequence[str]) -> str:
    """Texts, each in a tag, with what HTML would read as its own made harmless."""
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)


STYLE = (
    "<style>body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #8884}"
    "pre{background:#8882;padding:.6rem;overflow-x:auto}img{max-width:100%;background:#fff}</style>"
)
