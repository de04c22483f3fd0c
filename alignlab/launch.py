"""Start a bound config: settle the process (threads, numbers, quiet libraries) and call the task.

One process for now: `hardware=zero3` composes, binds and plans, and is refused here.
"""

import os
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from alignlab.config import Config
from alignlab.errors import mistake


def launch(config: Config, folder: Path, choices: dict[str, str]) -> None:
    """Run the config's task in this process; `choices` are the options that Hydra picked, for the record."""
    if config.hardware.strategy != "single" and config.task.name == "train" and not config.dry_run:
        raise mistake("hardware", "training under zero3 is not there yet", "use hardware=single, or dry_run=true")
    if "mlflow" in config.tracking.to and find_spec("mlflow") is None:
        raise mistake("tracking.to", "mlflow is not installed", "run pip install 'alignlab[mlflow]'")
    prepare(config)
    import_module(f"alignlab.tasks.{config.task.name}").run(config, folder, choices)


def prepare(config: Config) -> None:
    """Settle what the numbers depend on, and keep the libraries from talking to anybody but the user."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from alignlab.plan import threads

    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads stall where cores are shared
    os.environ["OMP_NUM_THREADS"] = str(threads(config))
    import torch
    from transformers.utils import logging

    torch.set_num_threads(threads(config))
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.disable_progress_bar()  # what takes long has a bar of ours
    torch.set_flush_denormal(True)  # denormals make a backward pass many times slower at large margins
