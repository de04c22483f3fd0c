"""Start the runs of a sweep, by whichever of Hydra's launchers is chosen, and do one of them.

`hydra/launcher=basic` does one run after the other in this process, `joblib` several at once on this machine
(`hydra.launcher.n_jobs`), `submitit_slurm` hands them to a cluster, and `ray` to Ray. A run may thus be anywhere; what
it has to know stands in its folder, and so does how it ended.
"""

import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.config.compose import bound, choices_of, to_tree
from alignlab.config.groups import conf_folder
from alignlab.errors import Explained
from alignlab.pipeline.sweep_folder import OUTCOME, read_trial, write_outcome
from alignlab.runtime import signals
from alignlab.runtime.signals import Stopped, die_with, stopped
from alignlab.sweeps.optuna_search import Drawn

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from hydra.plugins.launcher import Launcher
    from omegaconf import DictConfig


class Space(NamedTuple):
    """What is the same in all runs, as overrides, and what differs, by name; `hydra` is for Hydra itself."""

    fixed: list[str]
    varied: "dict[str, Override]"
    hydra: list[str]


@contextmanager
def launcher(folder: Path, space: Space) -> "Iterator[tuple[Any, int]]":
    """What starts runs, as `hydra/launcher` chooses it, and how many it has at work at once."""
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
        made: Launcher = Plugins.instance().instantiate_launcher(context, run_trial, master)

        def start(batch: Sequence[Drawn]) -> None:
            if batch:
                returned = made.launch([overrides(run, space) for run in batch], batch[0].number)
                if any(one.return_value == STOPPED for one in returned):  # raises what is no fault of the user's
                    raise stopped()

        yield start, at_once(master.hydra.launcher)


def overrides(run: Drawn, space: Space) -> list[str]:
    """The command of one run."""
    own = [f"{name}={value}" for name, value in run.values.items()]
    return [*space.fixed, *own, f"hydra.sweep.subdir={run.number}"]


def quoted(key: str, value: object) -> str:
    """An override whose value may hold any letter."""
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def at_once(settings: Any) -> int:
    """How many runs a launcher has at work at once."""
    given = settings.get("n_jobs") or settings.get("array_parallelism") or 1
    return int(given) if int(given) > 0 else os.cpu_count() or 1


STOPPED = "stopped"


def run_trial(cfg: "DictConfig") -> str:
    """One run of a sweep, in whatever process; how it ended is written down, and the next one follows a failed one.

    Where the process was asked to stop, this run and those that would follow here are left for the next command.
    """
    from hydra.core.hydra_config import HydraConfig

    from alignlab.pipeline.launch import launch

    if signals.asked():
        return STOPPED
    now = HydraConfig.get()
    folder = Path(now.runtime.output_dir)
    (folder / OUTCOME).unlink(missing_ok=True)
    trial = read_trial(folder)
    values = trial["values"] if trial else {}
    say(f"run {folder.name}: {' '.join(f'{name}={value}' for name, value in values.items())}")
    if "loky" in type(multiprocessing.current_process()).__module__:
        die_with(os.getppid())  # a worker of joblib's would go on with its run
    try:
        launch(bound(to_tree(cfg)).chosen(choices_of(HydraConfig.instance().cfg)), folder)
        write_outcome(folder, "finished")
        return "finished"
    except Stopped:
        signals.ask()
        return STOPPED
    except Explained as error:
        if (folder / OUTCOME).exists():
            return "pruned"  # and that is written down
        say(f"run {folder.name}: {error}")
        write_outcome(folder, "failed", str(error))
    return "failed"


def say(line: str) -> None:
    """Say how far a sweep is."""
    print(f"sweep: {line}", file=sys.stderr, flush=True)
