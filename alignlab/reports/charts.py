"""Small drawings for the report, as SVG inside the page: curves, and values with their intervals.

Colours come from the page's style sheet (`c0`, `c1`, … for the first, the second … line), so that they follow the
reader's light or dark setting. Whatever text is put in is escaped.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

WIDTH, HEIGHT = 330.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 10.0, 24.0
MOST_POINTS = 300


class Mark(NamedTuple):
    """A point of a curve that means something: a dot, or a ring where it is not full."""

    step: float
    value: float
    name: str
    full: bool


class Series(NamedTuple):
    """A named curve: (step, value), in the order of steps; and points to mark on it."""

    name: str
    points: list[tuple[float, float]]
    marks: tuple[Mark, ...] = ()


class Scale(NamedTuple):
    """A range of values, the pixels that it covers, and where ticks stand."""

    low: float
    high: float
    start: float
    end: float
    ticks: list[float]

    def place(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def curves(title: str, series: Sequence[Series], over: str = "steps") -> Markup:
    """A chart of one or more curves, over steps or something else, with a legend where there is more than one."""
    shown = [one._replace(points=thinned(one.points)) for one in series]
    steps = [step for one in shown for step, _ in one.points]
    values = [value for one in shown for _, value in one.points]
    across = scale(0, max([*steps, 1]), LEFT, WIDTH - RIGHT, 4, tight=True)
    up = scale(min(values), max(values), HEIGHT - BOTTOM, TOP, 4)
    lines = Markup("").join(line(one, place, across, up) for place, one in enumerate(shown))
    legend = Markup("").join(
        Markup('<span class="key{} c{}">{}</span>').format("" if shown[1:] else " only", place, one.name)
        for place, one in enumerate(shown)
    )
    return Markup(
        '<figure class="chart"><figcaption>{} {}</figcaption>'
        '<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}{}</svg></figure>'
    ).format(title, legend, WIDTH, HEIGHT, f"{title} over {over}", axes(across, up), lines)


def axes(across: Scale, up: Scale) -> Markup:
    """Grid lines with their numbers, for both directions."""
    parts = [
        Markup('<line class="grid" x1="{:g}" x2="{:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
               '<text class="tick" x="{:g}" y="{:.1f}" text-anchor="end">{}</text>').format(
            LEFT, WIDTH - RIGHT, LEFT - 6, up.place(tick) + 3.5, short(tick), y=up.place(tick)
        )
        for tick in up.ticks
    ]  # fmt: skip
    parts += [
        Markup('<text class="tick" x="{:.1f}" y="{:g}" text-anchor="middle">{}</text>').format(
            across.place(tick), HEIGHT - 6, short(tick)
        )
        for tick in across.ticks
    ]
    return Markup("").join(parts)


def line(series: Series, place: int, across: Scale, up: Scale) -> Markup:
    """One curve; a single point is a dot."""
    spots = [(across.place(step), up.place(value)) for step, value in series.points]
    if len(spots) == 1:
        return Markup('<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(place, *spots[0])
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    drawn = Markup('<polyline class="line c{}" points="{}"><title>{}</title></polyline>')
    marked = Markup("").join(marker(one, place, across, up) for one in series.marks)
    return drawn.format(place, path, series.name) + marked


def marker(mark: Mark, place: int, across: Scale, up: Scale) -> Markup:
    """A dot or a ring, with its name where the mouse rests on it."""
    drawn = Markup('<circle class="{} c{}" cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}</title></circle>')
    return drawn.format("dot" if mark.full else "ring", place, across.place(mark.step), up.place(mark.value), mark.name)


def whiskers(ends: Sequence[tuple[float, float, float] | None], names: Sequence[str]) -> Markup:
    """Values as dots on their intervals, one above the other on one scale; ends are (low, value, high)."""
    width, gap = 150.0, 12.0
    known = [one for one in ends if one]
    across = scale(min(low for low, _, _ in known), max(high for _, _, high in known), 5, width - 5, 3, tight=True)
    height = gap * len(ends) + 2
    parts = [
        Markup('<g class="c{}"><title>{}</title><line class="bar" x1="{:.1f}" x2="{:.1f}" y1="{y:g}" y2="{y:g}"/>'
               '<circle class="dot" cx="{:.1f}" cy="{y:g}" r="3.5"/></g>').format(
            place, names[place], across.place(low), across.place(high), across.place(value), y=gap * (place + 0.5) + 1
        )
        for place, (low, value, high) in ((place, one) for place, one in enumerate(ends) if one)
    ]  # fmt: skip
    frame = Markup(
        '<svg class="whiskers" viewBox="0 0 {w:g} {h:g}" width="{w:g}" height="{h:g}" aria-hidden="true">{}</svg>'
    )
    return frame.format(Markup("").join(parts), w=width, h=height)


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS` points: means of neighbours, so that no peak is picked and no drift is lost."""
    group = math.ceil(len(points) / MOST_POINTS)
    return [mean(points[start : start + group]) for start in range(0, len(points), max(1, group))]


def mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The middle of some points."""
    return sum(step for step, _ in points) / len(points), sum(value for _, value in points) / len(points)


def scale(low: float, high: float, start: float, end: float, count: int, tight: bool = False) -> Scale:
    """A scale with about `count` round ticks; it ends at ticks unless it is tight."""
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        room = abs(low) / 2 or 1.0
        low, high = low - room, high + room
    step = round_step((high - low) / count)
    if not tight:
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return Scale(low, high, start, end, list(ticks(low, high, step)))


def ticks(low: float, high: float, step: float) -> Iterator[float]:
    """The multiples of a step in a range."""
    for place in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield place * step


def round_step(width: float) -> float:
    """The next of 1, 2, 5, 10 … times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width * (1 - 1e-9))


def short(value: float) -> str:
    """A tick's number in few letters."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{round(value, 6):g}"
