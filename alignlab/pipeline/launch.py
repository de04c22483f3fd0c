"""Run a bound config: find its task, configure the process, run the task and return its result.

A task is one file, `tasks/<name>.py`, and one YAML, `conf/task/<name>.yaml`. It declares `run(config, folder)`, and may
declare `plan(config)`, the lines that `dry_run=true` prints, and `COMPUTES = False` where it needs no torch. On several
machines, or where torchrun has started several processes, only the first of all does the task; the others join it when
a stage is trained.
"""

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alignlab.config import extensions
from alignlab.config.schema import Config
from alignlab.errors import mistake
from alignlab.models import own_code, pretrained
from alignlab.pipeline.result import Result, result_of
from alignlab.pipeline.run_folder import new_folder
from alignlab.runtime import distributed, rendezvous, signals, terminal
from alignlab.runtime.file_errors import explained_file_errors
from alignlab.runtime.files import ensure_home
from alignlab.runtime.process_state import restored
from alignlab.runtime.progress import say
from alignlab.runtime.temporary_files import temporary_files


def run(config: Config, folder: Path | str | None = None) -> Result:
    """Run a config's task in this process, and return what it left in its folder.

    `folder` is where the run leaves its results; by default a new folder of `outputs/` that bears the time. The process
    is left as it was: threads, signal handlers, warnings, environment and random generators.
    Raises a `Mistake` where the config cannot be run here, and a `Failure` where something goes wrong later.
    """
    place = new_folder(config) if folder is None else Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with restored(), signals.explained_stop():
        launch(config, place)
    return result_of(place)


def launch(config: Config, folder: Path) -> None:
    """Run a config's task in this process, whose state it changes."""
    if "mlflow" in config.tracking.to and find_spec("mlflow") is None:
        raise mistake("tracking.to", "mlflow is not installed", "run pip install 'alignlab[mlflow]'")
    if config.dry_run:
        terminal.show(plan(config))
        return
    task = load_task(config)
    prepare(config, getattr(task, "COMPUTES", True))
    for line in own_code.warning(config):
        say(terminal.red(line, sys.stderr))
    signals.handle_stop_signals()
    with explained_file_errors(folder), temporary_files():
        if not trains(config):
            task.run(config, folder)
            return
        from alignlab.pipeline import workers

        workers.check(config)
        with workers.others(config):
            task.run(config, folder)


def load_task(config: Config) -> Any:
    """Look up the task of a config; raises a `Mistake` where its file declares no `run`."""
    task = extensions.load("tasks", config.task.name)
    if not hasattr(task, "run"):
        raise mistake("task", f"{task.__name__} declares no run", "see docs/extending.md for what a task declares")
    return task


def plan(config: Config) -> Iterator[str]:
    """Yield the lines of `dry_run=true`; a task without a plan of its own has one line."""
    ensure_home()
    distributed.set_environment()  # a plan computes nothing, and imports torch only where it has to
    pretrained.trust_base(config)
    yield from map(terminal.red, own_code.warning(config))
    task = load_task(config)
    yield from task.plan(config) if hasattr(task, "plan") else [f"plan: task={config.task.name}"]


def trains(config: Config) -> bool:
    """Return whether the task trains anything."""
    return config.task.name == "train"


def check_alone(config: Config) -> None:
    """Refuse a sweep whose command was given on several machines, or in several processes."""
    several = distributed.started_outside() and os.environ["WORLD_SIZE"] != "1"
    if several or rendezvous.resolve(config.hardware).nodes > 1:
        now = "give the command once; for a cluster, with hydra/launcher=submitit_slurm"
        raise mistake("sweep", "starts its runs itself, and shares none with other machines or processes", now)


def joins(config: Config) -> bool:
    """Return whether this process only trains with another one, which runs the task."""
    return config.hardware.strategy_record.several_processes and not rendezvous.is_host(config.hardware)


def join(config: Config) -> None:
    """Train with the process that does the task, for as long as it has stages to train."""
    signals.handle_stop_signals()
    if not trains(config):
        return
    from alignlab.pipeline import workers

    prepare(config)
    workers.check(config)
    workers.follow(config) if distributed.started_outside() else follow(config)


def follow(config: Config) -> None:
    """Train with machine 0 the stages that are not finished; machine 0 plans, prepares, measures and reports."""
    from alignlab.pipeline import held_out_reward_model, plan, workers
    from alignlab.pipeline.prepare_inputs import locate_models, prepare_data
    from alignlab.pipeline.train_stage import job
    from alignlab.runtime.files import partial_of

    config = locate_models(config)
    prepare_data(config)
    for made in filter(None, (held_out_reward_model.plan(config), plan.make(config))):
        for stage in made.stages:
            if not stage.done:
                rendezvous.wait_for_host(rendezvous.resolve(config.hardware).endpoint)
                workers.launch(job(made, stage, partial_of(stage.folder)), workers.Wire(None))


def prepare(config: Config, computes: bool = True) -> None:
    """Configure this process by the config; torch is imported only where the task computes with it."""
    ensure_home()
    if not computes:
        distributed.set_environment()
        return
    from alignlab.pipeline.fingerprint import threads

    distributed.configure_process(threads(config), config.hardware.matmul)
    pretrained.trust_base(config)
