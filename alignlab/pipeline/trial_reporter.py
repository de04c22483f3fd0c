"""Report the curve of a run to the search that started it, and stop the run where the search says so.

A run opens the search's database, from whatever machine it is on, and compares its curve with those of the other runs
(median rule: Golovin et al. 2017, section 3.2.2). Points of a curve are counted, not their optimizer steps: a run with
more passes over a rollout takes more of those.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.errors import Failure, Fault, failure
from alignlab.pipeline.run_folder import read_json, write_json
from alignlab.pipeline.sweep_folder import REPORTED, read_trial, write_outcome

if TYPE_CHECKING:
    from optuna import Trial


class Pruned(Failure):
    """A run was stopped because others were better at the same point."""


class Reporter:
    """A tracker that tells a search how its run goes, and stops the run where the search says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.brief: Any = read_trial(folder)
        self.file = folder / REPORTED
        self.seen: dict[str, float] = read_json(self.file) if self.file.exists() else {}
        self.trial = open_trial(self.brief)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Report the point of the curve that the search watches, if it is among these metrics."""
        value = metrics.get(self.brief["prune_by"])
        if value is None or value != value:
            return
        self.seen[str(step)] = value
        write_json(self.file, self.seen)
        point = sum(int(other) <= step for other in self.seen)
        self.trial.report(value, point)
        if self.trial.should_prune():
            said = f"{self.brief['prune_by']} is {value:.4g} at point {point}, worse than the others' median"
            write_outcome(self.folder, "pruned", said)
            raise Pruned([Fault(f"run {self.brief['number']}", said, "stopped early")])

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A search reads no tables."""

    def summary(self, values: dict[str, float]) -> None:
        """The sweeper reads the result."""

    def close(self) -> None:
        """Nothing is held back."""


def open_trial(brief: Any) -> "Trial":
    """The run of a search, from the database."""
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", message="The reported value is ignored", module="optuna")
    pruner = optuna.pruners.MedianPruner(brief["prune_after"], brief["prune_steps"] + 1)
    try:
        study = optuna.load_study(study_name=brief["study"], storage=brief["storage"], pruner=pruner)
    except Exception as error:
        raise failure(brief["storage"], f"cannot be read ({error})", "see that this machine reaches it") from error
    return optuna.Trial(study, study.get_trials(deepcopy=False)[brief["number"]]._trial_id)


def reporter(folder: Path) -> Reporter | None:
    """What a run of a search reports to; None for any other run, and where the search stops none early."""
    trial = read_trial(folder)
    return Reporter(folder) if trial and trial.get("prune_by") else None
