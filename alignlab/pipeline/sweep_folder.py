"""The folder of a sweep: the names of its files, the record that each holds, and the runs in it.

A run of a sweep lies in a folder that is named by the run's number.
"""

from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, cast

from alignlab.config.yaml_files import read_yaml
from alignlab.pipeline.run_folder import is_finished, read_json, write_json
from alignlab.runtime.run_files import SWEEP

# Of a sweep.
FACTS = SWEEP  # a `Facts`
STUDY = "study.db"  # Optuna's database
TABLE, TABLE_ROWS = "sweep.md", "sweep.json"  # every measure of every group of runs
PAGE, DRAWING = "sweep.html", "sweep"  # the drawing is written as .png and as .svg
RANKING = "ranking.json"
HACKING_PAGE, HACKING = "hacking.html", "hacking.json"
TRADE_OFF_PAGE, TRADE_OFF = "trade_off.html", "trade_off.json"
# Of one of its runs.
TRIAL = "trial.json"  # a `Trial`: what the run has to know
OUTCOME = "outcome.json"  # an `Outcome`
REPORTED = "reported.json"  # the points of the curve that the search has seen, by step

State = Literal["finished", "pruned", "failed"]


class Facts(TypedDict):
    """What a sweep is: its command, what varies, the settings of `sweep`, and the hash of all that decides results."""

    command: str
    name: NotRequired[str]
    hash: NotRequired[str]
    varied: NotRequired[dict[str, str]]
    sweep: dict[str, Any]


class Trial(TypedDict):
    """The number of a run and its values by setting; the other fields tell a run of a search where to report."""

    number: int
    values: dict[str, str]
    storage: NotRequired[str]
    study: NotRequired[str]
    prune_by: NotRequired[str | None]
    prune_after: NotRequired[int]
    prune_steps: NotRequired[int]


class Outcome(TypedDict):
    """How a run ended, and why where it did not finish."""

    state: State
    message: str


def is_sweep(folder: Path) -> bool:
    """Return whether a folder holds finished runs and is no run itself."""
    return not is_finished(folder) and any(map(is_finished, run_folders(folder)))


def run_folders(folder: Path) -> list[Path]:
    """Return the folders of the runs of a sweep that were begun, by their number."""
    numbered = [path for path in folder.iterdir() if path.is_dir() and path.name.isdigit()]
    return sorted(numbered, key=lambda path: int(path.name))


def read_facts(folder: Path) -> Facts:
    """Read what a sweep is; without its file there is no command and no measure that ranks the runs."""
    if not (folder / FACTS).exists():
        return {"command": "", "sweep": {"objective": None, "direction": "maximize"}}
    facts: Any = {"command": "", "sweep": {}} | read_yaml(folder / FACTS)
    return cast(Facts, facts)


def read_trial(run: Path) -> Trial | None:
    """Read what a run of a sweep has to know; None for any other run."""
    trial: Trial | None = read_json(run / TRIAL) if (run / TRIAL).exists() else None
    return trial


def read_outcome(run: Path) -> Outcome | None:
    """Read how a run of a sweep ended; None where it has not ended."""
    outcome: Outcome | None = read_json(run / OUTCOME) if (run / OUTCOME).exists() else None
    return outcome


def write_outcome(run: Path, state: State, message: str = "") -> None:
    """Write how a run of a sweep ended."""
    write_json(run / OUTCOME, {"state": state, "message": message})
