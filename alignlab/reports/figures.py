"""Pictures of a stage for W&B, MLflow and TensorBoard: its measures beside the base model's, and the reward over KL."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alignlab.pipeline.run_folder import read_metrics, read_result
from alignlab.reports.run_results import Stage, Table, side_by_side
from alignlab.runtime.tracking import Pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

MAX_ROWS = 20  # of the picture of measures
KL, REWARDS = "policy/kl", ("reward/mean", "reward/held_out", "gold/score")
COLOURS = ("#8b93a1", "#d9822b", "#137c8b", "#7b4fb5", "#b83b6a", "#4c7a1e")


def figures(folder: Path) -> Pictures:
    """Draw the pictures of the stage in a folder, as far as it was measured."""
    return {f"plots/{name}": as_pixels(figure) for name, figure in drawn(folder)}


def drawn(folder: Path) -> "Iterator[tuple[str, Figure]]":
    """Yield the figures of a stage by name."""
    tables = side_by_side([Stage(folder.name, "ran", read_result(folder))])
    if tables and (figure := measures(tables[0])):
        yield "measures", figure
    if figure := reward_over_kl(folder):
        yield "reward_against_kl", figure


def measures(table: Table) -> "Figure | None":
    """Draw the shares of a table with their intervals, one row per measure and one colour per model."""
    from matplotlib.figure import Figure

    rows = [row for row in table.rows if row.share][:MAX_ROWS]
    if not rows:
        return None
    figure = Figure(figsize=(8, 1 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for place, model in enumerate(table.models):
        shown = [(at, cell.ends) for at, row in enumerate(rows) if (cell := row.cells[place])]
        values = [100 * value for _, (_, value, _) in shown]
        errors = [[100 * (value - low) for _, (low, value, _) in shown], [100 * (h - v) for _, (_, v, h) in shown]]
        axes.errorbar(
            values, [-at - 0.2 * place for at, _ in shown], xerr=errors, fmt="o", label=model, color=COLOURS[place % 6]
        )
    axes.set_yticks([-at for at in range(len(rows))], [row.label for row in rows], fontsize=8)
    axes.set_xlim(-101 if any(end[0] < 0 for row in rows for end in row.ends if end) else -1, 101)
    axes.set_xlabel("percent, with 95% intervals")
    axes.legend(fontsize=8)
    return figure


def reward_over_kl(folder: Path) -> "Figure | None":
    """Draw the rewards of a stage's rollouts over the KL to the reference."""
    from matplotlib.figure import Figure

    steps = [metrics for _, metrics in read_metrics(folder) if KL in metrics]
    curves = {name: points for name in REWARDS if (points := over_kl(steps, name))}
    if not curves:
        return None
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.set_xlabel("KL to the reference, nats")
    axes.legend(fontsize=8)
    return figure


def over_kl(steps: Sequence[dict[str, float]], name: str) -> list[tuple[float, float]]:
    """Return a metric's values with the KL of their rollouts."""
    return [(metrics[KL], metrics[name]) for metrics in steps if name in metrics]


def as_pixels(figure: "Figure") -> "NDArray[np.uint8]":
    """Render a figure as pixels, [height, width, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), dtype=np.uint8)[..., :3]
