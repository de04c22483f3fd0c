"""Hyperparameter search with Optuna: draw the next runs, learn from those that ended, stop a bad one early.

Hydra's Optuna plugin requires Optuna 2.10 (2021), forgets the runs that were interrupted, and does not see curves.
`alignlab.sweeps.runner` therefore uses Optuna directly. All state is in a database (SQLite in the sweep's folder). An
interrupted run is run again under its own number. A draw depends only on the seed, its number and the runs that have
ended, so that a resumed search draws the same runs. A run opens the same database, from any machine, and compares its
curve with the others' (median rule: Golovin et al. 2017, section 3.2.2).

The rule counts the points of a curve, not optimizer steps: a run with more passes over a rollout takes more steps.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.config.credentials import redacted
from alignlab.config.sweep import Sweep
from alignlab.errors import failure, mistake
from alignlab.pipeline.sweep_folder import STUDY
from alignlab.runtime.files import digest
from alignlab.runtime.worker_errors import must_reach_run

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

STUDY_NAME = "sweep"  # of the study in a database of its own
ATTEMPTS = 6  # to open a database that another process is creating
BUSY = ("already exists", "UNIQUE constraint", "database is locked")


class Draw(NamedTuple):
    """A run of a sweep: its number, and the values of the settings that vary."""

    number: int
    values: dict[str, str]


class Search:
    """A search in a sweep's folder; `space` holds the values or the range of each setting, as Hydra has parsed them."""

    def __init__(self, folder: Path, settings: Sweep, space: "Mapping[str, Override]") -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.settings = settings
        self.space = {name: distribution(name, values) for name, values in space.items()}
        self.storage = settings.storage or f"sqlite:///{(folder / STUDY).absolute()}"
        name = STUDY_NAME if settings.storage is None else folder.name
        self.study: Study = open_study(self.storage, name, settings.direction)

    def count(self, *states: str) -> int:
        """Count the runs in one of some states: running, complete, pruned, fail."""
        return sum(trial.state.name.lower() in states for trial in self.study.get_trials(deepcopy=False))

    def begun(self) -> list[Draw]:
        """Return the runs that were begun and have not ended."""
        trials = self.study.get_trials(deepcopy=False)
        return [
            Draw(trial.number, as_text(trial.params, trial.distributions))
            for trial in trials
            if trial.state.name == "RUNNING"
        ]

    def ask(self) -> Draw:
        """Draw the next run."""
        number = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = sampler(self.settings, number)
        trial = self.study.ask(self.space)
        return Draw(trial.number, as_text(trial.params, trial.distributions))

    def tell(self, number: int, state: str, value: float | None = None) -> None:
        """Record how a run ended: complete (with its value), pruned or fail."""
        from optuna.trial import TrialState

        self.study.tell(number, value, state=TrialState[state.upper()])

    def report_to(self) -> dict[str, Any]:
        """Return what a run needs to report to this search."""
        return {**self.settings.model_dump(), "storage": self.storage, "study": self.study.study_name}


def open_study(storage: str, name: str, direction: str) -> "Study":
    """Open a study, which is made where there is none; raise a `Failure` where the storage cannot be opened.

    Where two searches create the tables of a new database at once, one of them fails, and finds them when it retries.
    """
    import optuna

    attempt = 0
    while True:
        attempt += 1
        try:
            return optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
        except Exception as error:  # of SQLAlchemy, of a driver, or a driver that is not installed
            if must_reach_run(error):
                raise
            if attempt < ATTEMPTS and any(text in str(error) for text in BUSY):
                time.sleep(0.5 * attempt)
                continue
            reason = redacted(" ".join(str(error).split()))[:160]
            now = "give an address such as sqlite:////folder/study.db, whose folder exists"
            raise failure("sweep.storage", f"cannot be opened ({type(error).__name__}: {reason})", now) from None


def as_text(params: Mapping[str, Any], distributions: "Mapping[str, BaseDistribution]") -> dict[str, str]:
    """Return drawn values as a command has them; real numbers get four digits."""
    from optuna.distributions import FloatDistribution

    return {
        name: f"{value:.4g}" if isinstance(distributions[name], FloatDistribution) else str(value)
        for name, value in params.items()
    }


def sampler(settings: Sweep, number: int) -> "BaseSampler":
    """Build the sampler that draws the run of this number."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(digest(settings.seed, number)[:8], 16)
    if settings.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=max(4, settings.trials // 4), constant_liar=True)


def distribution(name: str, override: "Override") -> "BaseDistribution":
    """Return the distribution of a setting: an interval (tagged log or int), a range of integers, or listed values."""
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    parsed: Any = override.value()
    if isinstance(parsed, IntervalSweep):
        low, high, log = parsed.start or 0.0, parsed.end or 0.0, "log" in parsed.tags
        if low >= high or (log and low <= 0):
            raise mistake(name, f"no interval from {low:g} to {high:g}", "give a lower end and a higher one")
        if "int" in parsed.tags:
            return IntDistribution(int(low), int(high), log=log)
        return FloatDistribution(low, high, log=log)
    values = list(override.sweep_string_iterator())
    if isinstance(parsed, RangeSweep) and all(value.lstrip("-").isdigit() for value in values):
        return IntDistribution(int(values[0]), int(values[-1]), step=int(parsed.step))
    return CategoricalDistribution(values)
