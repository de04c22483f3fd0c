"""Small charts for the pages, as inline SVG: curves, and values with their confidence intervals.

Colours come from the page's style sheet (`c0` for the first curve, `c1` for the second, …), so that they follow the
reader's light or dark setting. All text is escaped.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

WIDTH, HEIGHT = 330.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 10.0, 10.0, 24.0
MAX_POINTS = 300  # of a curve; longer ones are averaged


class Mark(NamedTuple):
    """A highlighted point of a curve, filled or a ring. Its name is a tooltip, and text beside it where labelled."""

    step: float
    value: float
    name: str
    filled: bool
    labelled: bool = False


class Series(NamedTuple):
    """A named curve: (step, value) in the order of steps, and points to highlight on it."""

    name: str
    points: list[tuple[float, float]]
    marks: tuple[Mark, ...] = ()


class Scale(NamedTuple):
    """A range of values, the pixels that it covers, and its ticks."""

    low: float
    high: float
    start: float
    end: float
    ticks: list[float]

    def pixel(self, value: float) -> float:
        """Return the pixel of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def curves(title: str, series: Sequence[Series], over: str = "steps") -> Markup:
    """Draw one or more curves; `over` names the horizontal axis. Several curves get a legend."""
    shown = [curve._replace(points=thin(curve.points)) for curve in series]
    steps = [step for curve in shown for step, _ in curve.points]
    values = [value for curve in shown for _, value in curve.points]
    x_scale = scale(0, max(steps, default=0) or 1, LEFT, WIDTH - RIGHT, 4, tight=True)
    y_scale = scale(min(values), max(values), HEIGHT - BOTTOM, TOP, 4)
    lines = Markup("").join(line(curve, number, x_scale, y_scale) for number, curve in enumerate(shown))
    legend = Markup("").join(
        Markup('<span class="key{} c{}">{}</span>').format("" if shown[1:] else " only", number, curve.name)
        for number, curve in enumerate(shown)
    )
    return Markup(
        '<figure class="chart"><figcaption>{} {}</figcaption>'
        '<svg viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">{}{}</svg></figure>'
    ).format(title, legend, WIDTH, HEIGHT, f"{title} over {over}", axes(x_scale, y_scale), lines)


def axes(x_scale: Scale, y_scale: Scale) -> Markup:
    """Draw grid lines and the numbers of both axes."""
    parts = [
        Markup('<line class="grid" x1="{:g}" x2="{:g}" y1="{y:.1f}" y2="{y:.1f}"/>'
               '<text class="tick" x="{:g}" y="{:.1f}" text-anchor="end">{}</text>').format(
            LEFT, WIDTH - RIGHT, LEFT - 6, y_scale.pixel(tick) + 3.5, short(tick), y=y_scale.pixel(tick)
        )
        for tick in y_scale.ticks
    ]  # fmt: skip
    parts += [
        Markup('<text class="tick" x="{:.1f}" y="{:g}" text-anchor="middle">{}</text>').format(
            x_scale.pixel(tick), HEIGHT - 6, short(tick)
        )
        for tick in x_scale.ticks
    ]
    return Markup("").join(parts)


def line(series: Series, number: int, x_scale: Scale, y_scale: Scale) -> Markup:
    """Draw one curve; a single point is a dot, unless it has a mark."""
    pixels = [(x_scale.pixel(step), y_scale.pixel(value)) for step, value in series.points]
    if len(pixels) == 1 and not series.marks:
        return Markup('<circle class="dot c{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(number, *pixels[0])
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
    polyline = Markup('<polyline class="line c{}" points="{}"><title>{}</title></polyline>')
    marks = Markup("").join(marker(mark, number, x_scale, y_scale) for mark in series.marks)
    return polyline.format(number, path, series.name) + marks


def marker(mark: Mark, number: int, x_scale: Scale, y_scale: Scale) -> Markup:
    """Draw a dot or a ring with its name."""
    circle = Markup('<circle class="{} c{}" cx="{:.1f}" cy="{:.1f}" r="3.5"><title>{}</title></circle>')
    shape, x, y = "dot" if mark.filled else "ring", x_scale.pixel(mark.step), y_scale.pixel(mark.value)
    return circle.format(shape, number, x, y, mark.name) + (beside(mark.name, x, y) if mark.labelled else Markup(""))


def beside(name: str, x: float, y: float) -> Markup:
    """Write a name above a point, or below one at the top; it ends at one on the right."""
    text = Markup('<text class="tick" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    return text.format(x, y - 6 if y > TOP + 10 else y + 14, "end" if x > WIDTH - 5 * RIGHT else "middle", name)


def whiskers(ends: Sequence[tuple[float, float, float] | None], names: Sequence[str], share: bool = False) -> Markup:
    """Draw values as dots on their intervals, one below the other; `ends` holds (low, value, high).

    All shares have the same scale, from 0 to 100% (from -100% where one is negative). Any other scale includes 0, so
    that lengths can be compared with the value.
    """
    width, gap = 150.0, 12.0
    x_scale = whisker_scale([interval for interval in ends if interval], share, width)
    height = gap * len(ends) + 2
    dots = Markup("").join(
        Markup('<g class="c{}"><title>{}</title><line class="bar" x1="{:.1f}" x2="{:.1f}" y1="{y:g}" y2="{y:g}"/>'
               '<circle class="dot" cx="{:.1f}" cy="{y:g}" r="3.5"/></g>').format(
            row, names[row], x_scale.pixel(low), x_scale.pixel(high), x_scale.pixel(value), y=gap * (row + 0.5) + 1
        )
        for row, (low, value, high) in ((row, interval) for row, interval in enumerate(ends) if interval)
    )  # fmt: skip
    grid = Markup("").join(
        Markup('<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{:g}"/>'
               '<text class="tick" x="{x:.1f}" y="{:g}" text-anchor="{}">{}</text>').format(
            height, height + 11, anchor, f"{100 * tick:g}%" if share else short(tick), x=x_scale.pixel(tick)
        )
        for tick, anchor in whisker_ticks(x_scale)
    )  # fmt: skip
    frame = Markup(
        '<svg class="whiskers" viewBox="0 0 {w:g} {h:g}" width="{w:g}" height="{h:g}" aria-hidden="true">{}{}</svg>'
    )
    return frame.format(grid, dots, w=width, h=height + 14)


def whisker_scale(measured: Sequence[tuple[float, float, float]], share: bool, width: float) -> Scale:
    """Return the scale of a row of whiskers: that of all shares, or a round one that includes 0."""
    low = min(0.0, *(interval[0] for interval in measured), 0.0)
    high = max(0.0, *(interval[2] for interval in measured), 0.0)
    if share:
        low, high = (-1.0 if low < 0 else 0.0), 1.0
    return scale(low, high, 5, width - 5, 3)


def whisker_ticks(x_scale: Scale) -> Iterator[tuple[float, str]]:
    """Yield the ends of a scale, and 0 where it lies between them, each with the anchor of its number."""
    yield x_scale.low, "start"
    if x_scale.low < 0 < x_scale.high:
        yield 0.0, "middle"
    yield x_scale.high, "end"


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return at most `MAX_POINTS` points, each the mean of neighbours, which neither selects peaks nor hides drift."""
    group = math.ceil(len(points) / MAX_POINTS)
    return [mean(points[start : start + group]) for start in range(0, len(points), max(1, group))]


def mean(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the mean step and the mean value."""
    return sum(step for step, _ in points) / len(points), sum(value for _, value in points) / len(points)


def scale(low: float, high: float, start: float, end: float, count: int, tight: bool = False) -> Scale:
    """Build a scale with about `count` round ticks; it ends at ticks unless it is tight."""
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        margin = abs(low) / 2 or 1.0
        low, high = low - margin, high + margin
    step = round_step((high - low) / count)
    if not tight:
        low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return Scale(low, high, start, end, list(ticks(low, high, step)))


def ticks(low: float, high: float, step: float) -> Iterator[float]:
    """Yield the multiples of a step in a range."""
    for multiple in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        yield multiple * step


def round_step(width: float) -> float:
    """Return the next larger of 1, 2, 5, 10 … times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width * (1 - 1e-9))


def short(value: float) -> str:
    """Return a tick's number in few characters."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{round(value, 6):g}"
