"""Start the runs of a sweep with the Hydra launcher that the command chooses.

`hydra/launcher=basic` does one run after the other in this process, `joblib` several at once on this machine
(`hydra.launcher.n_jobs`), `submitit_slurm` submits them to a cluster, and `ray` to Ray. A run may therefore be on
another machine: its folder holds its values before it starts, and its outcome when it has ended.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.config.compose import bind_tree, choices_of, to_tree
from alignlab.config.groups import conf_folder
from alignlab.errors import Explained, failure
from alignlab.pipeline.sweep_folder import OUTCOME, read_trial, write_outcome
from alignlab.runtime import signals
from alignlab.runtime.signals import Stopped, die_with, stopped
from alignlab.sweeps.optuna_search import Draw

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from hydra.plugins.launcher import Launcher
    from omegaconf import DictConfig


KILLED = ("TerminatedWorkerError", "BrokenProcessPool")  # errors of joblib and of concurrent.futures


class Space(NamedTuple):
    """The overrides that all runs share, those that vary by name, and those of Hydra itself."""

    fixed: list[str]
    varied: "dict[str, Override]"
    hydra: list[str]


@contextmanager
def launcher(folder: Path, space: Space) -> "Iterator[tuple[Any, int]]":
    """Yield a function that starts runs with the chosen launcher, and how many runs it starts at once."""
    from hydra import compose, initialize_config_dir
    from hydra._internal.callbacks import Callbacks
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base=None):
        master = compose("config", [*space.fixed, *space.hydra, quoted("hydra.sweep.dir", folder)], True)
        HydraConfig.instance().set_config(master)
        context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks(master))
        chosen: Launcher = Plugins.instance().instantiate_launcher(context, run_trial, master)

        def start(batch: Sequence[Draw]) -> None:
            if batch:
                with explained_worker():
                    results = chosen.launch([overrides(run, space) for run in batch], batch[0].number)
                if any(result.return_value == STOPPED for result in results):  # or raises the run's own error
                    raise stopped()

        yield start, at_once(master.hydra.launcher)


@contextmanager
def explained_worker() -> Iterator[None]:
    """Raise a `Failure` where a process of the launcher was killed."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ not in KILLED:
            raise
        what = "a worker process of the launcher was killed, and the others were stopped"
        now = "check the system's log for the OOM killer, or lower hydra.launcher.n_jobs; the same command resumes"
        raise failure("hydra/launcher", what, now) from None


def overrides(run: Draw, space: Space) -> list[str]:
    """Return the overrides of one run."""
    values = [f"{name}={value}" for name, value in run.values.items()]
    return [*space.fixed, *values, f"hydra.sweep.subdir={run.number}"]


def quoted(key: str, value: object) -> str:
    """Return an override whose value may contain any character."""
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def at_once(settings: Any) -> int:
    """Return how many runs a launcher starts at once."""
    count = settings.get("n_jobs") or settings.get("array_parallelism") or 1
    return int(count) if int(count) > 0 else os.cpu_count() or 1


STOPPED = "stopped"


def run_trial(cfg: "DictConfig") -> str:
    """Run one run of a sweep in this process, write its outcome and return it; a failed run does not raise.

    Where the process was asked to stop, this run and those that would follow are left to the next command.
    """
    from hydra.core.hydra_config import HydraConfig

    from alignlab.pipeline.launch import launch

    if signals.stop_requested():
        return STOPPED
    now = HydraConfig.get()
    folder = Path(now.runtime.output_dir)
    (folder / OUTCOME).unlink(missing_ok=True)
    trial = read_trial(folder)
    values = trial["values"] if trial else {}
    say(f"run {folder.name}: {' '.join(f'{name}={value}' for name, value in values.items())}")
    if "loky" in type(multiprocessing.current_process()).__module__:
        die_with(os.getppid())  # otherwise joblib's worker would continue its run
    try:
        launch(bind_tree(to_tree(cfg)).chosen(choices_of(HydraConfig.instance().cfg)), folder)
        write_outcome(folder, "finished")
        return "finished"
    except Stopped:
        signals.request_stop()
        return STOPPED
    except Explained as error:
        if (folder / OUTCOME).exists():
            return "pruned"  # the reporter wrote the outcome
        say(f"run {folder.name}: {error}")
        write_outcome(folder, "failed", str(error))
    return "failed"


def say(line: str) -> None:
    """Print the progress of a sweep."""
    print(f"sweep: {line}", file=sys.stderr, flush=True)
