"""Log to TensorBoard: event files in the folder `tensorboard/` of the stage."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignlab.config.schema import Config
from alignlab.runtime.tracking import StageEnd


def open_tracker(config: Config, stage: str, folder: Path) -> "TensorboardTracker":
    """Open event files in a stage's folder."""
    return TensorboardTracker(folder / "tensorboard")


class TensorboardTracker:
    """Writes event files."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder))

    def log(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        lines = [columns, ["---"] * len(columns), *rows]
        self.writer.add_text(name, "\n".join("|" + "|".join(map(cell, line)) + "|" for line in lines))

    def summary(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"summary/{name}", value)

    def end(self, ended: StageEnd) -> None:
        for gate in ended.gates:
            text = f"{gate['what']} is {gate['number']:.3g} and must be {gate['bound']}"
            self.writer.add_text(f"gates/{gate['gate']}", cell(text), gate["step"])
        for name, picture in ended.pictures().items():
            self.writer.add_image(name, picture, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


def cell(value: Any) -> str:
    """Escape a value for a cell of a Markdown table."""
    return html.escape(str(value)).replace("|", "&#124;").replace("\n", "<br>")
