"""The one entry point: compose → bind → plan → launch, and mistakes turned into one sentence each.

A command is composed and bound before Hydra's own main takes over, so that a mistake is answered at once and leaves
no folder behind. Hydra then makes the run's folder and calls `job`; several runs are `alignlab.sweeps.runner`'s.
"""

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import alignlab
from alignlab.config.compose import Command, bound, check, continued, is_nothing, own_file, to_tree
from alignlab.config.groups import conf_folder, usage
from alignlab.config.schema import Config
from alignlab.errors import Explained
from alignlab.pipeline.launch import check_alone, join, joins
from alignlab.pipeline.model_references import check_models

if TYPE_CHECKING:
    from omegaconf import DictConfig

os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hand exceptions on, so that they can be rephrased
HYDRA_FLAGS = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")
FAILED: list[Explained] = []


def main() -> None:
    """Run the command; exit with 0 (done), 2 (a mistake in it), 75 (asked to stop: again) or 1 (anything else)."""
    try:
        dispatch(sys.argv[1:])
    except Explained as error:
        stop(str(error), error.exit_code)
    except KeyboardInterrupt:
        stop("interrupted: the same command goes on from the last checkpoint", 1)


def forgetful(error: Explained) -> Explained:
    """Let go of the frames that an error came through, so that open files are closed now and not at the very end."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def stop(message: str, code: int) -> NoReturn:
    """Say what is wrong and leave."""
    gc.collect()
    print(message, file=sys.stderr)
    sys.exit(code)


def dispatch(arguments: list[str]) -> None:
    """Check a command as a whole, then hand it to Hydra."""
    if {"--help", "-h"} & set(arguments):
        print(usage())
        return
    if "--version" in arguments:
        print(f"alignlab {alignlab.__version__}")
        return
    read_environment()
    arguments = continued([own_file(argument) for argument in arguments if not is_nothing(argument)])
    flags, overrides = split(arguments)
    asks = bool(set(flags) & set(HYDRA_FLAGS))
    command = check(overrides, binds=not asks, checks=[check_models])
    overrides = [named(override) for override in overrides]
    gc.enable()
    arguments = [*overrides, *flags]  # the order that argparse understands
    if asks:
        hand_over(arguments)
        return
    configs = [bound(tree) for tree in command.trees]
    if command.several or {"-m", "--multirun"} & set(flags):
        check_alone(configs[0])
        run_sweep(command, overrides)
    elif joins(configs[0]):
        join(configs[0])
    elif command.trees[0]["dry_run"]:
        show(configs[0])
    else:
        hand_over(arguments)


def run_sweep(command: Command, overrides: list[str]) -> None:
    """Do the runs of a sweep, then print their table; or say what would be run."""
    from alignlab.pipeline.sweep_folder import is_sweep
    from alignlab.reports.sweep_summary import summarise
    from alignlab.runtime import signals
    from alignlab.sweeps import runner

    if command.trees[0]["dry_run"]:
        print("\n".join(runner.planned(command, overrides)))
        show(bound(command.trees[0]))
        return
    signals.heed()
    folder, failed = runner.sweep(command, overrides)
    if is_sweep(folder):
        print("\n".join(summarise(folder)))
    if failed:
        raise failed


def named(override: str) -> str:
    """Let an override bring in an entry whose name is the user's own, which Hydra writes with `++`."""
    return f"++{override}" if override.startswith(("reward.parts.", "reward.members.")) else override


def read_environment() -> None:
    """Take keys and folders from `.env` in the current folder; what the environment says already, counts."""
    if Path(".env").is_file():
        from dotenv import load_dotenv

        load_dotenv(".env")


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Part a command line into Hydra's flags (with their values) and overrides."""
    flags: list[str] = []
    overrides: list[str] = []
    takes_value = {"--cfg", "-c", "--info", "-i", "--package", "-p", "--config-dir", "-cd", "--config-name", "-cn"}
    waiting = False
    for argument in arguments:
        if waiting or argument.startswith("-"):
            flags.append(argument)
            waiting = not waiting and argument in takes_value
        else:
            overrides.append(argument)
    return flags, overrides


def show(config: Config) -> None:
    """Print the plan."""
    from alignlab.pipeline.launch import prepare
    from alignlab.pipeline.plan import make
    from alignlab.pipeline.plan import show as lines
    from alignlab.pipeline.prepare_inputs import prepare_data

    prepare(config)
    if config.task.name == "preferences":
        from alignlab.tasks.preferences import plan

        print("\n".join(plan(config)))
        return
    prepare_data(config)
    print("\n".join(lines(make(config))))


def hand_over(arguments: list[str]) -> None:
    """Let Hydra compose the checked command, make the run's folder and call `job`; raise what went wrong in it."""
    import hydra
    from omegaconf import OmegaConf

    sys.argv[1:] = arguments
    OmegaConf.register_new_resolver("kind_of_run", lambda task, method: method if task == "train" else task)
    hydra.main(config_path=str(conf_folder()), config_name="config", version_base=None)(job)()
    if FAILED:
        raise FAILED[-1]


def job(cfg: "DictConfig") -> None:
    """One run: bind what Hydra has composed and launch it."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from alignlab.pipeline.launch import launch

    now = HydraConfig.get()
    choices = {str(group): str(option) for group, option in dict(OmegaConf.to_container(now.runtime.choices)).items()}
    try:
        launch(bound(to_tree(cfg)), Path(now.runtime.output_dir), choices)
    except Explained as error:
        FAILED.append(forgetful(error))
