"""Report the curve of a run to the search that started it, and stop the run where the search says so.

A run opens the search's database, from any machine, and compares its curve with those of the other runs (median rule:
Golovin et al. 2017, section 3.2.2). The rule counts the points of a curve, not optimizer steps: a run with more passes
over a rollout takes more steps.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.errors import Failure, Fault, failure
from alignlab.pipeline.run_folder import read_json, write_json
from alignlab.pipeline.sweep_folder import REPORTED, read_trial, write_outcome
from alignlab.runtime.worker_errors import must_reach_run

if TYPE_CHECKING:
    from optuna import Trial


class Pruned(Failure):
    """Raised where a run is stopped because others were better at the same point."""


class Reporter:
    """A tracker that reports a run's curve to a search, and stops the run where the search says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: Any = read_trial(folder)
        self.file = folder / REPORTED
        self.reported: dict[str, float] = read_json(self.file) if self.file.exists() else {}
        self.trial = open_trial(self.settings)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Report the point of the curve that the search watches, if it is among these metrics."""
        value = metrics.get(self.settings["prune_by"])
        if value is None or value != value:
            return
        self.reported[str(step)] = value
        write_json(self.file, self.reported)
        point = sum(int(other) <= step for other in self.reported)
        self.trial.report(value, point)
        if self.trial.should_prune():
            what = f"{self.settings['prune_by']} is {value:.4g} at point {point}, worse than the others' median"
            write_outcome(self.folder, "pruned", what)
            raise Pruned([Fault(f"run {self.settings['number']}", what, "stopped early")])

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Do nothing: a search reads no tables."""

    def summary(self, values: dict[str, float]) -> None:
        """Do nothing: the sweep reads the result."""

    def end(self, ended: object) -> None:
        """Do nothing: the sweep reads the run's folder."""

    def close(self) -> None:
        """Do nothing: every point is reported at once."""


def open_trial(settings: Any) -> "Trial":
    """Open the run's trial in the database of its search."""
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", message="The reported value is ignored", module="optuna")
    pruner = optuna.pruners.MedianPruner(settings["prune_after"], settings["prune_steps"] + 1)
    try:
        study = optuna.load_study(study_name=settings["study"], storage=settings["storage"], pruner=pruner)
    except Exception as error:
        if must_reach_run(error):
            raise
        raise failure(
            settings["storage"], f"cannot be read ({error})", "check that this machine can reach it"
        ) from error
    return optuna.Trial(study, study.get_trials(deepcopy=False)[settings["number"]]._trial_id)


def reporter(folder: Path) -> Reporter | None:
    """Return the reporter of a run of a search; None for other runs, and where the search stops none early."""
    trial = read_trial(folder)
    return Reporter(folder) if trial and trial.get("prune_by") else None
