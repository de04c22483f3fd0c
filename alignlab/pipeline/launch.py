"""Start a bound config: settle the process (threads, numbers, quiet libraries) and call the task.

On several machines, or where torchrun has started several processes, only the first of all does the task; the others
join it when a stage is trained.
"""

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from alignlab.config.schema import Config
from alignlab.errors import mistake
from alignlab.runtime import distributed, rendezvous, signals


def launch(config: Config, folder: Path, choices: dict[str, str]) -> None:
    """Run the config's task in this process; `choices` are the options that Hydra picked, for the record."""
    if "mlflow" in config.tracking.to and find_spec("mlflow") is None:
        raise mistake("tracking.to", "mlflow is not installed", "run pip install 'alignlab[mlflow]'")
    prepare(config)
    signals.heed()
    task = import_module(f"alignlab.tasks.{config.task.name}")
    if not trains(config):
        task.run(config, folder, choices)
        return
    from alignlab.pipeline import workers

    workers.check(config)
    with workers.others(config):
        task.run(config, folder, choices)


def trains(config: Config) -> bool:
    """Whether the task trains anything."""
    return config.task.name == "train" and not config.dry_run


def check_alone(config: Config) -> None:
    """Refuse a sweep whose command was given on several machines, or in several processes."""
    several = distributed.started_outside() and os.environ["WORLD_SIZE"] != "1"
    if several or rendezvous.meeting(config.hardware).nodes > 1:
        now = "give the command once; for a cluster, with hydra/launcher=submitit_slurm"
        raise mistake("sweep", "starts its runs itself, and shares none with other machines or processes", now)


def joins(config: Config) -> bool:
    """Whether this process only joins another one, which does the task."""
    return config.hardware.strategy != "single" and not rendezvous.is_host(config.hardware)


def join(config: Config) -> None:
    """Train with the process that does the task, for as long as it has stages to train."""
    signals.heed()
    if not trains(config):
        return
    from alignlab.pipeline import workers
    from alignlab.pipeline.train_stage import follow

    prepare(config)
    workers.check(config)
    workers.follow(config) if distributed.started_outside() else follow(config)


def prepare(config: Config) -> None:
    """Settle this process by the config."""
    from alignlab.pipeline.plan import threads

    distributed.settle(threads(config))
