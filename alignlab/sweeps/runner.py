"""Several runs of one command: which they are, where they lie, and going on where a sweep was stopped.

Hydra's own sweeper begins anew with every command; this one knows a sweep again. The name of its folder holds the hash
of what the sweep is made of (settings, values, data, sources, versions), so that the same command, after a kill too,
finds the runs that have ended and does the rest; a run that was cut short goes on from its stage's last checkpoint. A
value on the command line stands before the same setting's values in a file of `conf/sweep/`. Grids are worked out here,
other runs are drawn by `alignlab.sweeps.optuna_search`; `alignlab.sweeps.launchers` starts them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config.compose import Command, bound
from alignlab.config.dataset import HubData
from alignlab.config.method_protocol import load_method
from alignlab.config.schema import Config
from alignlab.config.sweep import DRAWS
from alignlab.errors import Failure, Fault, failure, mistake
from alignlab.pipeline.run_folder import read_result, write_json
from alignlab.pipeline.sweep_folder import FACTS, TRIAL, Facts, read_facts, read_outcome
from alignlab.runtime.files import digest, write_text
from alignlab.sweeps.launchers import Space, launcher, say
from alignlab.sweeps.optuna_search import Drawn, Search

NOT_IN_NAME = {"tracking", "dry_run"}
NOT_IN_SEARCH = {"trials", "storage", "objective", "direction", "prune_by", "prune_after", "prune_steps"}


class Swept(NamedTuple):
    """A sweep's folder, and what to say of the runs that have failed."""

    folder: Path
    failed: Failure | None


def sweep(command: Command, overrides: list[str]) -> Swept:
    """Do all runs that are not done yet."""
    config, space = bound(command.trees[0]), spaced(command.params, overrides)
    folder, failed = place(command, config, space), None
    if not draws(config):
        combinations(space)  # says what is wrong with them before there is a folder
    with alone(folder):
        write_facts(folder, command, config, space, overrides)
        with launcher(folder, space) as (start, at_once):
            runs = drawn_runs(folder, config, space, at_once) if draws(config) else grid_runs(folder, space)
            try:
                for batch in runs:
                    start(batch)
            except Failure as error:
                failed = error
    return Swept(folder, failed)


def planned(command: Command, overrides: list[str]) -> Iterator[str]:
    """What a sweep would do, in words."""
    config, space = bound(command.trees[0]), spaced(command.params, overrides)
    folder = place(command, config, space)
    count = config.sweep.trials if draws(config) else len(combinations(space))
    there = sum(state(folder, number) in {"finished", "pruned"} for number in range(count))
    yield f"sweep: {some(count)} ({config.sweep.sampler}), {there} there already, in {folder}"
    yield from (f"  {name}={str(one.input_line).partition('=')[2]}" for name, one in space.varied.items())
    yield "each of them like this one, but for those settings:"


def some(count: int) -> str:
    """So many runs."""
    return f"{count} run{'s' * (count != 1)}"


def announce(folder: Path, count: int, there: int) -> None:
    """Say how many runs there are, and how many of them need not be done."""
    say(f"{some(count)} in {folder}" + (f", {there} there already" if there else ""))


def draws(config: Config) -> bool:
    """Whether runs are drawn one after the other rather than listed."""
    return config.sweep.sampler in DRAWS


def spaced(params: Mapping[str, Any], overrides: Sequence[str]) -> Space:
    """Part a command into what is the same in all runs and what differs; the command stands before the file."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    given = [parser.parse_override(text) for text in overrides]
    own = {one.key_or_group for one in given}
    listed = [parser.parse_override(f"{key}={values}") for key, values in params.items()]
    both = [*(one for one in listed if one.key_or_group not in own), *given]
    varied = {one.get_key_element(): one for one in both if one.is_sweep_override()}
    others = [one for one in both if not one.is_sweep_override()]
    hydra = [str(one.input_line) for one in others if one.key_or_group.startswith("hydra")]
    fixed = [str(one.input_line) for one in others if not one.key_or_group.startswith("hydra")]
    return Space(fixed, varied, hydra)


def place(command: Command, config: Config, space: Space) -> Path:
    """The folder of a sweep: as `hydra.sweep.dir` says, else named after the sweep, with the hash of what it is."""
    if any(text.startswith("hydra.sweep.dir=") for text in space.hydra):
        return Path(command.sweep_folder).absolute()
    return Path(command.sweep_folder).absolute() / f"{command.name}-{mark(config, space)}"


def mark(config: Config, space: Space) -> str:
    """The hash of what decides a sweep's runs and their results."""
    from alignlab import data
    from alignlab.pipeline.plan import versions
    from alignlab.runtime.source_hash import hash_with_imports

    content = None if isinstance(config.dataset, HubData) else data.content(config.dataset)  # a hub's has a revision
    settings = config.model_dump(mode="json", exclude=NOT_IN_NAME | {"sweep"})
    search = config.sweep.model_dump(exclude=NOT_IN_SEARCH)
    values = {name: str(one.input_line) for name, one in space.varied.items()}
    return digest(
        settings, search, values, content, hash_with_imports(load_method(config.method.name).module), versions()
    )[:8]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other commands from doing the same runs."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise failure(str(folder), "another command is at work on this sweep", "wait for it, or stop it") from error


def write_facts(folder: Path, command: Command, config: Config, space: Space, overrides: Sequence[str]) -> None:
    """Write down what the sweep is, for its table and for people; a folder that holds another sweep is refused."""
    import yaml

    if (folder / FACTS).exists() and read_facts(folder).get("hash") != mark(config, space):
        raise mistake("hydra.sweep.dir", f"{folder} holds another sweep", "give another folder, or leave it out")
    facts: Facts = {
        "command": " ".join(["python -m alignlab", *overrides, *([] if command.several else ["-m"])]),
        "name": command.name,
        "hash": mark(config, space),
        "varied": {name: str(one.input_line).partition("=")[2] for name, one in space.varied.items()},
        "sweep": config.sweep.model_dump(),
    }
    write_text(folder / FACTS, yaml.safe_dump(dict(facts), sort_keys=False))


def combinations(space: Space) -> list[Drawn]:
    """Every combination of the values, numbered; the last setting changes fastest."""
    if loose := [name for name, values in space.varied.items() if values.is_interval_sweep()]:
        raise mistake(loose[0], "a grid needs values, not an interval", "list them, or set sweep.sampler=random or tpe")
    listed = [[(name, value) for value in one.sweep_string_iterator()] for name, one in space.varied.items()]
    return [Drawn(number, dict(values)) for number, values in enumerate(product(*listed))]


def grid_runs(folder: Path, space: Space) -> Iterator[list[Drawn]]:
    """The combinations that have no result yet, all at once."""
    runs = combinations(space)
    left = [run for run in runs if state(folder, run.number) != "finished"]
    say(
        f"{some(len(runs))} in {folder}" + (f", {len(runs) - len(left)} there already" if len(left) < len(runs) else "")
    )
    for run in left:
        brief(folder, run, {})
    if left:
        yield left
    failed = [run.number for run in runs if state(folder, run.number) != "finished"]
    if failed:
        raise failures(folder, failed)


def drawn_runs(folder: Path, config: Config, space: Space, at_once: int) -> Iterator[list[Drawn]]:
    """Runs as a search draws them, so many at a time; first those that an earlier command has left in the middle."""
    search = Search(folder, config.sweep, space.varied)
    begun, ended = search.begun(), search.count("complete", "pruned")
    announce(folder, config.sweep.trials, ended)
    failed: list[int] = []
    left = config.sweep.trials - ended
    while left > 0:
        batch = [begun.pop(0) if begun else search.ask() for _ in range(min(at_once, left))]
        left -= len(batch)
        for run in batch:
            brief(folder, run, search.brief())
        yield [run for run in batch if state(folder, run.number) not in {"finished", "pruned"}]
        for run in batch:
            failed += keep(search, folder, run.number)
    if failed:
        raise failures(folder, failed)


def brief(folder: Path, run: Drawn, search: Mapping[str, Any]) -> None:
    """Write down what a run has to know, wherever it will be."""
    known = {"number": run.number, "values": run.values, **search}
    write_json(folder / str(run.number) / TRIAL, known)


def keep(search: Search, folder: Path, number: int) -> list[int]:
    """Tell a search how a run ended; gives its number where it failed."""
    ended = state(folder, number)
    if ended == "finished" and search.settings.objective:
        search.tell(number, "complete", objective(folder / str(number), search.settings.objective))
    elif ended == "finished":
        search.tell(number, "complete", 0.0)
    else:
        search.tell(number, "pruned" if ended == "pruned" else "fail")
    return [] if ended in {"finished", "pruned"} else [number]


def objective(folder: Path, name: str) -> float:
    """What a run has reached."""
    found = {row["name"]: float(row["value"]) for row in read_result(folder)["measurements"]}
    if name not in found:
        said = f"the last stage measured no {name}"
        raise mistake("sweep.objective", said, f"it measured {', '.join(found) or 'nothing'}")
    return found[name]


def state(folder: Path, number: int) -> str:
    """How a run has ended: finished, pruned, failed; or that it has not."""
    outcome = read_outcome(folder / str(number))
    return outcome["state"] if outcome else "not ended"


def failures(folder: Path, numbers: Sequence[int]) -> Failure:
    """What to say where runs have failed."""
    said = []
    for number in numbers:
        outcome = read_outcome(folder / str(number))
        said.append(Fault(f"run {number}", outcome["message"] if outcome else "it did not come to its end"))
    return Failure([*said, Fault(str(folder), f"{len(numbers)} without a result", "the same command tries them again")])
