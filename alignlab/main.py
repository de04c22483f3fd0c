"""The one entry point: compose → bind → plan → launch, and mistakes turned into one sentence each.

A command is composed and bound before Hydra's own main takes over, so that a mistake is answered at once and leaves
no folder behind. Hydra then makes the run's folder and calls `job`; several runs are `alignlab.sweeps`'. A Python
program does the same with `alignlab.compose` and `alignlab.run`.
"""

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import alignlab
from alignlab.config import command_line
from alignlab.config.compose import Command, bind_tree, check, choices_of, to_tree
from alignlab.config.groups import conf_folder, usage
from alignlab.errors import Explained
from alignlab.pipeline.launch import check_alone, join, joins
from alignlab.pipeline.model_references import check_models

if TYPE_CHECKING:
    from omegaconf import DictConfig

HYDRA_FLAGS = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")
CONFIG_DIR = ("--config-dir", "-cd")
VALUED_FLAGS = {"--cfg", "-c", "--info", "-i", "--package", "-p", "--config-name", "-cn", *CONFIG_DIR}


def main() -> None:
    """Run the command; exit with 0 (done), 2 (a mistake in it), 75 (asked to stop: again) or 1 (anything else)."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let exceptions through, so that they can be rephrased
    try:
        dispatch(sys.argv[1:])
    except Explained as error:
        stop(str(error), error.exit_code)
    except KeyboardInterrupt:
        stop("interrupted: the same command resumes from the last checkpoint", 1)


def without_frames(error: Explained) -> Explained:
    """Drop the frames that an error came through, so that open files are closed now and not at the very end."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def stop(message: str, code: int) -> NoReturn:
    """Print what is wrong and exit."""
    gc.collect()
    print(message, file=sys.stderr)
    sys.exit(code)


def dispatch(arguments: list[str]) -> None:
    """Check a command as a whole, then hand it to Hydra."""
    if "--version" in arguments:
        print(f"alignlab {alignlab.__version__}")
        return
    read_environment()
    flags, typed = split(arguments)
    overrides, groups = command_line.read(typed)
    if {"--help", "-h"} & set(flags):
        print(usage(groups))
        return
    asks = bool(set(flags) & set(HYDRA_FLAGS))
    with command_line.stored(groups):
        command = check(overrides, binds=not asks, checks=[check_models], groups=groups)
        gc.enable()
        follow(command, [named(override) for override in overrides], flags, asks)


def follow(command: Command, overrides: list[str], flags: Sequence[str], asks: bool) -> None:
    """Do what a checked command says: print, plan, run once, join another process, or sweep."""
    arguments = [*overrides, *flags]  # the order that argparse understands
    if asks:
        hand_over(arguments)
        return
    configs = [bind_tree(tree, command.groups) for tree in command.trees]
    if command.several or {"-m", "--multirun"} & set(flags):
        check_alone(configs[0])
        run_sweep(command, overrides)
    elif joins(configs[0]):
        join(configs[0])
    elif command.trees[0]["dry_run"]:
        from alignlab.pipeline.launch import plan

        print("\n".join(plan(configs[0])))
    else:
        hand_over(arguments)


def run_sweep(command: Command, overrides: list[str]) -> None:
    """Do the runs of a sweep, then print their table; or print what would be run."""
    from alignlab.pipeline.launch import plan
    from alignlab.pipeline.sweep_folder import is_sweep
    from alignlab.reports.sweep_summary import summarise
    from alignlab.runtime import signals
    from alignlab.sweeps import runner

    if command.trees[0]["dry_run"]:
        print("\n".join([*runner.planned(command, overrides), *plan(bind_tree(command.trees[0], command.groups))]))
        return
    signals.handle_sigterm()
    folder, failed = runner.sweep(command, overrides)
    if is_sweep(folder):
        print("\n".join(summarise(folder)))
    if failed:
        raise failed


def named(override: str) -> str:
    """Let an override bring in an entry whose name is the user's own, which Hydra writes with `++`."""
    return f"++{override}" if override.startswith(("reward.parts.", "reward.members.")) else override


def read_environment() -> None:
    """Read keys and folders from `.env` in the current folder; variables that are set already come first."""
    if Path(".env").is_file():
        from dotenv import load_dotenv

        load_dotenv(".env")


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line into Hydra's flags (with their values) and overrides; `--config-dir` becomes an override."""
    flags: list[str] = []
    overrides: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, separator, value = argument.partition("=")
        if flag in CONFIG_DIR:
            overrides.append(command_line.config_dir(value if separator else next(rest, "")))
        elif argument.startswith("-"):
            flags += [argument, next(rest, "")] if argument in VALUED_FLAGS else [argument]
        else:
            overrides.append(argument)
    return flags, overrides


def hand_over(arguments: list[str]) -> None:
    """Let Hydra compose the checked command, make the run's folder and call `job`; raise what goes wrong in it."""
    import hydra
    from omegaconf import OmegaConf

    raised: list[Explained] = []

    def job(cfg: "DictConfig") -> None:
        """Run what Hydra has composed; Hydra would wrap an error, so it is kept and raised outside."""
        from hydra.core.hydra_config import HydraConfig

        from alignlab.pipeline.launch import run

        config = bind_tree(to_tree(cfg)).chosen(choices_of(HydraConfig.instance().cfg))
        try:
            run(config, HydraConfig.get().runtime.output_dir)
        except Explained as error:
            raised.append(without_frames(error))

    sys.argv[1:] = arguments
    OmegaConf.register_new_resolver("kind_of_run", lambda task, method: method if task == "train" else task)
    hydra.main(config_path=str(conf_folder()), config_name="config", version_base=None)(job)()
    if raised:
        raise raised[-1]
