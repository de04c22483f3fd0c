"""Settings of `conf/task/`: what a command does."""

from typing import Literal

from alignlab.config.settings import File, Settings


class Task(Settings):
    """What to do: train stages, prepare data, evaluate a model, write a report again, or make preference data."""

    name: Literal["train", "prepare", "evaluate", "report", "preferences"]
    model: str | None = None
    run: File | None = None
