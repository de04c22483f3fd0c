"""Explain typed prompts by a run's models, one request at a time; the models of the last run stay loaded."""

from threading import Lock
from typing import TYPE_CHECKING

from alignlab.config.hardware import Hardware
from alignlab.dashboard.runs import Run

if TYPE_CHECKING:
    from alignlab.explanations.explain import Explained, Models

ROWS, NEIGHBOURS = 2000, 5  # training rows of each stage that are compared, and shown


class Explainer:
    """Loads the models of a run when it is first asked about it."""

    def __init__(self, hardware: Hardware) -> None:
        self.hardware = hardware
        self.lock = Lock()
        self.loaded: tuple[tuple[str, float], Models] | None = None

    def __call__(self, run: Run, prompt: str, completion: str | None) -> "Explained":
        """Explain a prompt; raises an `Explained` error where the run's models cannot be read."""
        from alignlab.explanations.explain import explain
        from alignlab.pipeline import explained_stage

        with self.lock:
            key = run.name, run.updated
            if self.loaded is None or self.loaded[0] != key:
                self.loaded = None  # before others are loaded
                models = explained_stage.load(run.folder, None, None, None, self.hardware, ROWS, NEIGHBOURS)
                self.loaded = key, models
            return explain(self.loaded[1], [{"role": "user", "content": prompt}], completion)
