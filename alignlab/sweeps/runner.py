"""Run a sweep: several runs of one command, in one folder, resumed by the same command.

Hydra's own sweeper starts anew with every command. Here the name of a sweep's folder holds the hash of everything that
decides its results (settings, values, data, sources, versions). The same command, even after a kill, finds the runs
that have ended and does the others; an interrupted run resumes from its stage's last checkpoint. A value on the command
line takes precedence over the same setting in a file of `conf/sweep/`. This module lists grids;
`alignlab.sweeps.optuna_search` draws the runs of a search, and `alignlab.sweeps.launchers` starts them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config.compose import Command, bind_tree
from alignlab.config.method_protocol import load_method
from alignlab.config.schema import Config
from alignlab.config.sweep import DRAWS
from alignlab.errors import Failure, Fault, failure, mistake
from alignlab.pipeline.run_folder import PROVENANCE, read_provenance, read_result, write_json
from alignlab.pipeline.sweep_folder import FACTS, TRIAL, Facts, read_facts, read_outcome
from alignlab.runtime.cache import is_intact
from alignlab.runtime.file_errors import explained_file_errors
from alignlab.runtime.files import cache_root, digest, write_text
from alignlab.sweeps.launchers import Space, launcher, say
from alignlab.sweeps.optuna_search import Draw, Search

NOT_IN_HASH = {"tracking", "dry_run", "sweep"}  # settings that change no result of a run
NOT_IN_SEARCH_HASH = {"trials", "storage", "objective", "direction", "prune_by", "prune_after", "prune_steps"}


class SweepResult(NamedTuple):
    """A sweep's folder, and the error about the runs that failed."""

    folder: Path
    failed: Failure | None


def sweep(command: Command, overrides: list[str]) -> SweepResult:
    """Do all runs that are not finished."""
    config, space = bind_tree(command.trees[0]), search_space(command.params, overrides)
    folder, failed = folder_of(command, config, space), None
    if not draws(config):
        combinations(space)  # raises its mistakes before the folder is made
    with explained_file_errors(folder), exclusive(folder):
        write_facts(folder, command, config, space, overrides)
        with launcher(folder, space) as (start, at_once):
            runs = drawn_runs(folder, config, space, at_once) if draws(config) else grid_runs(folder, space)
            try:
                for batch in runs:
                    start(batch)
            except Failure as error:
                failed = error
    return SweepResult(folder, failed)


def planned(command: Command, overrides: list[str]) -> Iterator[str]:
    """Yield what a sweep would do, in words."""
    config, space = bind_tree(command.trees[0]), search_space(command.params, overrides)
    folder = folder_of(command, config, space)
    count = config.sweep.trials if draws(config) else len(combinations(space))
    ended = sum(state(folder, number) in {"finished", "pruned"} for number in range(count))
    yield f"sweep: {plural(count)} ({config.sweep.sampler}), {ended} finished already, in {folder}"
    yield from (f"  {name}={str(override.input_line).partition('=')[2]}" for name, override in space.varied.items())
    yield "each run is this one with other values of those settings:"


def plural(count: int) -> str:
    """Return a number of runs in words."""
    return f"{count} run{'s' * (count != 1)}"


def announce(folder: Path, count: int, ended: int) -> None:
    """Print how many runs there are, and how many of them are finished already."""
    say(f"{plural(count)} in {folder}" + (f", {ended} finished already" if ended else ""))


def draws(config: Config) -> bool:
    """Return whether runs are drawn one after the other rather than listed."""
    return config.sweep.sampler in DRAWS


def search_space(params: Mapping[str, Any], overrides: Sequence[str]) -> Space:
    """Split a command into the overrides that all runs share and those that vary.

    `params` are the values of a file of `conf/sweep/`; the command's own take precedence.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    from_command = [parser.parse_override(text) for text in overrides]
    keys = {override.key_or_group for override in from_command}
    from_file = [parser.parse_override(f"{key}={values}") for key, values in params.items()]
    every = [*(override for override in from_file if override.key_or_group not in keys), *from_command]
    varied = {override.get_key_element(): override for override in every if override.is_sweep_override()}
    others = [override for override in every if not override.is_sweep_override()]
    hydra = [str(override.input_line) for override in others if override.key_or_group.startswith("hydra")]
    fixed = [str(override.input_line) for override in others if not override.key_or_group.startswith("hydra")]
    return Space(fixed, varied, hydra)


def folder_of(command: Command, config: Config, space: Space) -> Path:
    """Return the folder of a sweep: `hydra.sweep.dir`, else one named after the sweep and its hash."""
    if any(text.startswith("hydra.sweep.dir=") for text in space.hydra):
        return Path(command.sweep_folder).absolute()
    return Path(command.sweep_folder).absolute() / f"{command.name}-{sweep_hash(config, space)}"


def sweep_hash(config: Config, space: Space) -> str:
    """Hash everything that decides the results of a sweep's runs."""
    from alignlab import data
    from alignlab.pipeline.fingerprint import versions
    from alignlab.runtime.source_hash import hash_with_imports

    content = None if config.dataset.is_remote else data.content(config.dataset)  # settings hold a hub's revision
    module_name = data.module_name(config.dataset)
    settings = config.model_dump(mode="json", exclude=NOT_IN_HASH)
    search = config.sweep.model_dump(exclude=NOT_IN_SEARCH_HASH)
    values = {name: str(override.input_line) for name, override in space.varied.items()}
    sources = [hash_with_imports(name) for name in (load_method(config.method.name).module, module_name)]
    return digest(settings, search, values, content, sources, versions())[:8]


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Lock a sweep's folder; raise a failure where another command has locked it."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise failure(str(folder), "another command is running this sweep", "wait for it, or stop it") from error


def write_facts(folder: Path, command: Command, config: Config, space: Space, overrides: Sequence[str]) -> None:
    """Write what the sweep is; raise a mistake where the folder holds another sweep."""
    import yaml

    if (folder / FACTS).exists() and read_facts(folder).get("hash") != sweep_hash(config, space):
        raise mistake("hydra.sweep.dir", f"{folder} holds another sweep", "give another folder, or leave it out")
    facts: Facts = {
        "command": " ".join(["python -m alignlab", *overrides, *([] if command.several else ["-m"])]),
        "name": command.name,
        "hash": sweep_hash(config, space),
        "varied": {name: str(override.input_line).partition("=")[2] for name, override in space.varied.items()},
        "sweep": config.sweep.model_dump(),
    }
    write_text(folder / FACTS, yaml.safe_dump(dict(facts), sort_keys=False))


def combinations(space: Space) -> list[Draw]:
    """Return every combination of the values, numbered; the last setting changes fastest."""
    if intervals := [name for name, values in space.varied.items() if values.is_interval_sweep()]:
        raise mistake(
            intervals[0], "a grid needs values, not an interval", "list them, or set sweep.sampler=random or tpe"
        )
    listed = [[(name, value) for value in values.sweep_string_iterator()] for name, values in space.varied.items()]
    return [Draw(number, dict(values)) for number, values in enumerate(product(*listed))]


def grid_runs(folder: Path, space: Space) -> Iterator[list[Draw]]:
    """Yield the combinations that are not finished, as one batch; raise a failure about those that failed."""
    runs = combinations(space)
    left = [run for run in runs if state(folder, run.number) != "finished" or is_damaged(folder / str(run.number))]
    announce(folder, len(runs), len(runs) - len(left))
    for run in left:
        write_trial(folder, run, {})
    if left:
        yield left
    failed = [run.number for run in runs if state(folder, run.number) != "finished"]
    if failed:
        raise failures(folder, failed)


def drawn_runs(folder: Path, config: Config, space: Space, at_once: int) -> Iterator[list[Draw]]:
    """Yield batches of runs that a search draws, first those that an earlier command left unfinished."""
    search = Search(folder, config.sweep, space.varied)
    begun, ended = search.begun(), search.count("complete", "pruned")
    announce(folder, config.sweep.trials, ended)
    failed: list[int] = []
    left = config.sweep.trials - ended
    while left > 0:
        batch = [begun.pop(0) if begun else search.ask() for _ in range(min(at_once, left))]
        left -= len(batch)
        for run in batch:
            write_trial(folder, run, search.report_to())
        yield [run for run in batch if state(folder, run.number) not in {"finished", "pruned"}]
        for run in batch:
            failed += record_outcome(search, folder, run.number)
    if failed:
        raise failures(folder, failed)


def write_trial(folder: Path, run: Draw, search: Mapping[str, Any]) -> None:
    """Write a run's values and where it reports to into its folder."""
    write_json(folder / str(run.number) / TRIAL, {"number": run.number, "values": run.values, **search})


def record_outcome(search: Search, folder: Path, number: int) -> list[int]:
    """Tell a search how a run ended; return the run's number where it failed."""
    ended = state(folder, number)
    if ended == "finished" and search.settings.objective:
        search.tell(number, "complete", objective(folder / str(number), search.settings.objective))
    elif ended == "finished":
        search.tell(number, "complete", 0.0)
    else:
        search.tell(number, "pruned" if ended == "pruned" else "fail")
    return [] if ended in {"finished", "pruned"} else [number]


def objective(folder: Path, name: str) -> float:
    """Return the value of the objective that a run reached."""
    values = {row["name"]: row["value"] for row in read_result(folder)["measurements"]}
    if name not in values:
        what = f"the last stage measured no {name}"
        raise mistake("sweep.objective", what, f"it measured {', '.join(values) or 'nothing'}")
    return values[name]


def state(folder: Path, number: int) -> str:
    """Return how a run ended: finished, pruned, failed, or "not ended"."""
    outcome = read_outcome(folder / str(number))
    return outcome["state"] if outcome else "not ended"


def is_damaged(run: Path) -> bool:
    """Return whether a stage of a finished run is damaged in the cache; the run's folder shares its weights."""
    for file in run.glob(f"*/{PROVENANCE}"):
        facts = read_provenance(file.parent)
        stage = cache_root() / "stages" / f"{facts['stage']}-{facts['fingerprint']}"
        if stage.exists() and not is_intact(stage):
            return True
    return False


def failures(folder: Path, numbers: Sequence[int]) -> Failure:
    """Build the failure that lists the runs without a result."""
    faults = []
    for number in numbers:
        outcome = read_outcome(folder / str(number))
        faults.append(Fault(f"run {number}", outcome["message"] if outcome else "it did not end"))
    now = "the same command runs them again"
    return Failure([*faults, Fault(str(folder), f"{len(numbers)} without a result", now)])
