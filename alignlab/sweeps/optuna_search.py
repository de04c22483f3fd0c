"""Search among settings with Optuna: draw the next runs, learn from those that ended, stop a bad one early.

Hydra has a plugin for Optuna, which holds it back at 2.10 (of 2021) and knows neither a kill nor a curve: it forgets
what was running, and a run cannot tell how it goes. So `alignlab.sweeps.runner` asks here, on today's Optuna. All that
is known lies in a database (SQLite in the sweep's folder): a run that was cut short is run again under its own number,
and what is drawn depends on the seed, the number and the runs that have ended alone, so that a search which was killed
draws what it would have drawn. A run at work opens the same database, from whatever machine it is on, and compares its
curve with the others' (median rule: Golovin et al. 2017, section 3.2.2).

Points of a curve are counted, not their optimizer steps: a run with more passes over a rollout takes more of those.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.config.sweep import Sweep
from alignlab.errors import mistake
from alignlab.pipeline.sweep_folder import STUDY
from alignlab.runtime.files import digest

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

NAME = "sweep"  # of the study in its database


class Drawn(NamedTuple):
    """A run that a search wants: its number, and its settings by name."""

    number: int
    values: dict[str, str]


def storage(settings: Sweep, folder: Path) -> str:
    """The address of the database."""
    return settings.storage or f"sqlite:///{(folder / STUDY).absolute()}"


class Search:
    """A search in a sweep's folder; `space` holds the values or the range of each setting, as Hydra has parsed them."""

    def __init__(self, folder: Path, settings: Sweep, space: "Mapping[str, Override]") -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder, self.settings = folder, settings
        self.space = {name: distribution(name, values) for name, values in space.items()}
        self.address = storage(settings, folder)
        name = NAME if settings.storage is None else folder.name
        self.study: Study = optuna.create_study(
            storage=self.address, study_name=name, direction=settings.direction, load_if_exists=True
        )

    def count(self, *states: str) -> int:
        """How many runs are in one of some states: running, complete, pruned, fail."""
        return sum(trial.state.name.lower() in states for trial in self.study.get_trials(deepcopy=False))

    def begun(self) -> list[Drawn]:
        """The runs that were begun and have not ended."""
        trials = self.study.get_trials(deepcopy=False)
        return [
            Drawn(one.number, self.words(one.params, one.distributions))
            for one in trials
            if one.state.name == "RUNNING"
        ]

    def ask(self) -> Drawn:
        """Draw the next run."""
        number = len(self.study.get_trials(deepcopy=False))
        self.study.sampler = sampler(self.settings, number)
        trial = self.study.ask(self.space)
        return Drawn(trial.number, self.words(trial.params, trial.distributions))

    def words(self, params: Mapping[str, Any], within: "Mapping[str, BaseDistribution]") -> dict[str, str]:
        """Drawn values as a command has them: four digits say enough."""
        return {name: f"{params[name]:.4g}" if is_float(within[name]) else str(params[name]) for name in params}

    def tell(self, number: int, state: str, value: float | None = None) -> None:
        """Keep how a run ended: complete (with its value), pruned or fail."""
        from optuna.trial import TrialState

        self.study.tell(number, value, state=TrialState[state.upper()])

    def brief(self) -> dict[str, Any]:
        """What a run has to know to report to this search."""
        return {**self.settings.model_dump(), "storage": self.address, "study": self.study.study_name}


def sampler(settings: Sweep, number: int) -> "BaseSampler":
    """What draws the run of this number."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = int(digest(settings.seed, number)[:8], 16)
    if settings.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=max(4, settings.trials // 4), constant_liar=True)


def distribution(name: str, override: "Override") -> "BaseDistribution":
    """What a setting is drawn from: an interval (tagged log or int), a range of whole numbers, or listed values."""
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    given: Any = override.value()
    if isinstance(given, IntervalSweep):
        low, high, log = given.start or 0.0, given.end or 0.0, "log" in given.tags
        if low >= high or (log and low <= 0):
            raise mistake(name, f"no interval from {low:g} to {high:g}", "give a lower end and a higher one")
        if "int" in given.tags:
            return IntDistribution(int(low), int(high), log=log)
        return FloatDistribution(low, high, log=log)
    values = list(override.sweep_string_iterator())
    if isinstance(given, RangeSweep) and all(value.lstrip("-").isdigit() for value in values):
        return IntDistribution(int(values[0]), int(values[-1]), step=int(given.step))
    return CategoricalDistribution(values)


def is_float(given: "BaseDistribution") -> bool:
    """Whether values are real numbers."""
    from optuna.distributions import FloatDistribution

    return isinstance(given, FloatDistribution)
