"""The entry point of the command line: compose → bind → plan → launch; a mistake in the command is one message.

A command is composed and bound before Hydra's own main is called, so that a mistake is reported at once and leaves no
folder behind. Hydra then creates the run's folder and calls `job`. Several runs are started by `alignlab.sweeps`. A
Python program uses `alignlab.compose` and `alignlab.run` instead.
"""

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import alignlab
from alignlab.config import command_line
from alignlab.config.compose import Command, bind_tree, check, choices_of, to_tree, typed_in
from alignlab.config.credentials import redacted
from alignlab.config.groups import Groups, conf_folder, usage
from alignlab.config.schema import Config
from alignlab.config.suggestions import close_to
from alignlab.errors import Explained, Mistake, mistake
from alignlab.pipeline.launch import check_alone, join, joins
from alignlab.pipeline.model_references import check_models
from alignlab.reports.primary_measures import check_primary
from alignlab.runtime import terminal
from alignlab.runtime.signals import exit_on_signals

if TYPE_CHECKING:
    from omegaconf import DictConfig

HYDRA_FLAGS = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--shell-completion", "-sc")
CONFIG_DIR = ("--config-dir", "-cd")
MULTIRUN = ("--multirun", "-m")
# Flags with a value, and the values that they take; Hydra refuses any other value of --package.
VALUED_FLAGS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")),
    **dict.fromkeys(("--info", "-i"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
    **dict.fromkeys(("--package", "-p"), ()),
}
IN_DOTENV = (
    *("HF_TOKEN", "WANDB_API_KEY", "OPENAI_API_KEY", "ALIGNLAB_STORE"),
    *("ALIGNLAB_OUTPUTS", "ALIGNLAB_MULTIRUN", "ALIGNLAB_CACHE", "ALIGNLAB_DATA", "HF_HOME"),
)  # what `.env` may set
BARE_FLAGS = ("--help", "-h", "--version", "--resolve", *MULTIRUN, "--hydra-help", "--shell-completion", "-sc")


def main() -> None:
    """Run the command; exit with 0 (done), 2 (a mistake), 75 or 130 (stopped), 3 (refused) or 1 (another error)."""
    terminal.make_streams_robust()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let exceptions through, so that they can be rephrased
    try:
        dispatch(sys.argv[1:])
    except Explained as error:
        exit_on_signals()
        stop(str(error), error.exit_code)
    except KeyboardInterrupt:
        exit_on_signals()
        stop("interrupted: the same command reuses finished stages and saved checkpoints", 130)


def without_frames(error: Explained) -> Explained:
    """Remove the tracebacks of an error and its causes, so that the files open in their frames are closed now."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return error


def stop(message: str, code: int) -> NoReturn:
    """Print an error message and exit."""
    gc.collect()
    with suppress(OSError):  # the terminal may have closed
        print(redacted(message), file=sys.stderr)
    sys.exit(code)


def dispatch(arguments: list[str]) -> None:
    """Check a command as a whole, then run it."""
    if "--version" in arguments:
        print(f"alignlab {alignlab.__version__}")
        return
    read_environment()
    flags, typed = split(arguments)
    overrides, groups = command_line.read(typed)
    if {"--help", "-h"} & set(flags):
        from alignlab.config.help import help_lines

        print("\n".join(help_lines(overrides, groups)) or usage(groups))
        return
    is_query = bool({flag.partition("=")[0] for flag in flags} & set(HYDRA_FLAGS))
    multirun = bool(set(flags) & set(MULTIRUN))
    with command_line.stored(groups):
        command = check(
            overrides, binds=not is_query, checks=[check_models, check_primary], groups=groups, multirun=multirun
        )
        gc.enable()
        follow(command, [with_plus(override) for override in overrides], flags, is_query)


def follow(command: Command, overrides: list[str], flags: Sequence[str], is_query: bool) -> None:
    """Run a checked command: print the config or the plan, run once, join another process, or sweep."""
    arguments = [*overrides, *flags]  # the order that argparse understands
    if is_query:
        run_with_hydra(arguments, command.groups, is_query)
        return
    first = bind_tree(command.trees[0], command.groups).chosen(command.choices, command.typed)
    if command.several or set(flags) & set(MULTIRUN):
        check_alone(first)
        run_sweep(command, overrides, first)
    elif joins(first):
        join(first)
    elif first.dry_run:
        from alignlab.pipeline.launch import plan

        terminal.show(plan(first))
    else:
        run_with_hydra(arguments, command.groups, is_query)


def run_sweep(command: Command, overrides: list[str], first: Config) -> None:
    """Run a sweep and print its table; with dry_run, print the planned runs, and the plan of the first."""
    from alignlab.pipeline.launch import plan
    from alignlab.pipeline.sweep_folder import is_sweep
    from alignlab.reports.sweep_summary import summarise
    from alignlab.runtime import signals
    from alignlab.sweeps import runner

    if first.dry_run:
        terminal.show([*runner.planned(command, overrides), *plan(first)])
        return
    signals.handle_stop_signals()
    folder, failed = runner.sweep(command, overrides)
    if is_sweep(folder):
        for line in summarise(folder):
            print(line)
    if failed:
        raise failed


def with_plus(override: str) -> str:
    """Return an override in Hydra's form; an entry with a name of the user's choice needs `++`."""
    return f"++{override}" if override.startswith(("reward.parts.", "reward.members.", "reward.costs.")) else override


def read_environment() -> None:
    """Read keys and folders from `.env` in the current folder; variables that are set already come first.

    Only the names of `.env.example` are read: a folder may be somebody else's, and other variables could run code.
    """
    if not Path(".env").is_file():
        return
    from dotenv import dotenv_values

    try:
        values = dotenv_values(".env", interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise mistake(".env", f"cannot be read ({error})", "mend or remove it") from None
    if others := [name for name in values if name not in IN_DOTENV]:
        listed = ", ".join(repr(name)[1:-1][:40] for name in others[:3])
        print(f".env: {listed} ignored; a file .env may set {', '.join(IN_DOTENV)}", file=sys.stderr)
    for name in IN_DOTENV:
        if value := values.get(name):
            os.environ.setdefault(name, value)


def split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line into Hydra's flags (with their values) and overrides; `--config-dir` becomes an override.

    Raises a `Mistake` for a flag that does not exist, such as `--method=sft`.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, separator, value = argument.partition("=")
        if flag in CONFIG_DIR:
            overrides.append(command_line.config_dir(value if separator else next(rest, "")))
        elif flag in VALUED_FLAGS:
            flags += [flag, value_of_flag(flag, value if separator else next(rest, ""))]
        elif argument in BARE_FLAGS:
            flags.append(argument)
        elif argument.startswith("-"):
            raise unknown_flag(flag, argument)
        else:
            overrides.append(argument)
    return flags, overrides


def value_of_flag(flag: str, value: str) -> str:
    """Return the value of one of Hydra's flags; raise a `Mistake` where the flag does not take it."""
    known = VALUED_FLAGS[flag]
    if not value or (known and value not in known):
        raise mistake(flag, f"{value!r} is none of {', '.join(known)}" if known else "no value was given")
    return value


def unknown_flag(flag: str, argument: str) -> Mistake:
    """Build the `Mistake` for an argument that begins with a dash and is no flag."""
    if flag in {"--config-name", "-cn", "--config-path", "-cp"}:
        return mistake(flag, "alignlab has one config", "choose an option: experiment=NAME, or experiment=file.yaml")
    setting = argument.lstrip("-")
    if "=" in setting:
        return mistake(argument, "is not a flag", f"settings have no dashes: write {setting}")
    hint = close_to(argument, [*BARE_FLAGS, *VALUED_FLAGS, *CONFIG_DIR])
    return mistake(argument, "is not a flag", hint or f"settings have no dashes: write {setting.replace('-', '_')}=…")


def run_with_hydra(arguments: list[str], groups: Groups, is_query: bool) -> None:
    """Let Hydra compose the checked command, create the run's folder and call `job`; raise the job's error."""
    import hydra
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationResolutionError

    raised: list[Explained] = []
    folders: dict[str, str] = {}

    def new_folder(path: str) -> str:
        """Make the folder of the run, the first time that it is asked for; a query makes none."""
        from alignlab.pipeline.run_folder import make_exclusively

        if is_query:
            return path
        try:
            folders[path] = folders.get(path) or str(make_exclusively(Path(path)))
        except Explained as error:
            raised.append(error)  # OmegaConf raises an error of its own
            raise
        return folders[path]

    def job(cfg: "DictConfig") -> None:
        """Run the composed config; an error is stored and raised outside, since Hydra would wrap it."""
        from hydra.core.hydra_config import HydraConfig

        from alignlab.pipeline.launch import run

        composed = HydraConfig.instance().cfg
        config = bind_tree(to_tree(cfg), groups).chosen(choices_of(composed), typed_in(composed))
        try:
            run(config, HydraConfig.get().runtime.output_dir)
        except Explained as error:
            raised.append(without_frames(error))

    sys.argv[1:] = arguments
    OmegaConf.register_new_resolver("kind_of_run", lambda task, method: method if task == "train" else task)
    OmegaConf.register_new_resolver("new_folder", new_folder)
    try:
        hydra.main(config_path=str(conf_folder()), config_name="config", version_base=None)(job)()
    except InterpolationResolutionError:
        if not raised:
            raise
    if raised:
        raise raised[-1]
