"""Compose a command as Hydra would, and find everything that is wrong with it.

Hydra stops at its first fault. Here unknown groups and options are looked up, and the rest is composed without
Hydra's checks and handed to `bind`, so that one message tells all faults. A sweep is tried one value at a time.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.config.bind import bind
from alignlab.config.groups import OWN, conf_folder, known_groups
from alignlab.config.method import Method
from alignlab.config.schema import Config
from alignlab.config.settings import Settings
from alignlab.config.suggestions import close_to
from alignlab.errors import Fault, Mistake, failure, mistake

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


SHARED = {"constitution", "judge"}  # groups that methods take over into their own settings


class Command(NamedTuple):
    """A composed command: one tree a combination that a sweep will reach (one value changed at a time).

    `name` is that of the sweep, experiment or method; `params` are the values that a file lists for settings.
    """

    trees: list[dict[str, Any]]
    several: bool
    sweep_folder: str
    name: str = "sweep"
    params: Mapping[str, Any] = {}


def check(overrides: list[str], binds: bool, checks: Sequence[Callable[[Config], None]] = ()) -> Command:
    """Compose a command; raises one `Mistake` with everything that is wrong in it.

    With `binds`, each tree is bound and handed to every function of `checks`. A `Mistake` that one raises is reported
    with the others.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    parsed, faults = parse(overrides)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base=None), quick_yaml():
        try:
            first = compose("config", [loose(override) for override in parsed], return_hydra_config=True)
            tree = to_tree(first)
            trees = [variant(tree, parsed, other) for other in variants(first, parsed)]
            params = swept(first, parsed)
            command = Command([tree, *trees], is_sweep(first), sweep_folder(first), name_of(first), params)
        except (HydraException, OmegaConfBaseException) as error:
            raise Mistake([*faults, told_by_hydra(str(error))]) from error
    doubted = tuple(fault.where for fault in faults)  # what a wrong choice of option would bring in is unknown
    for tree in command.trees if binds else ():
        faults += [fault for fault in faults_of(tree, checks) if not fault.where.startswith(doubted)]
    if faults:
        raise Mistake(list(dict.fromkeys(faults)))
    return command


@contextmanager
def quick_yaml() -> Iterator[None]:
    """Have files read by libyaml meanwhile; OmegaConf asks for the reader in Python, which takes four times as long."""
    yaml: Any = import_module("yaml")
    slow = yaml.SafeLoader
    yaml.SafeLoader = getattr(yaml, "CSafeLoader", slow)
    try:
        yield
    finally:
        yaml.SafeLoader = slow


def sweep_folder(cfg: "DictConfig") -> str:
    """Where a sweep's runs will lie, worked out once, so that the summary finds them."""
    from hydra.core.hydra_config import HydraConfig

    HydraConfig.instance().set_config(cfg)
    return str(cfg.hydra.sweep.dir)


def told_by_hydra(said: str) -> Fault:
    """What Hydra finds wrong; a launcher that is not installed is said in our words."""
    if launcher := re.search(r"'hydra/launcher/(\w+)'.*'hydra/launcher': ([\w ]+?) Config", " ".join(said.split())):
        there = (
            f"there is {launcher[2].replace(' ', ', ')}; pip install 'alignlab[launchers]' brings joblib and submitit"
        )
        return Fault("hydra/launcher", f"no option {launcher[1]!r}", there)
    return Fault("command", " ".join(said.split()))


def name_of(cfg: "DictConfig") -> str:
    """What a sweep is called: its file, or the experiment, or the method."""
    chosen = dict(cfg.hydra.runtime.choices)
    return str(chosen.get("sweep") or chosen.get("experiment") or chosen["method"])


def swept(cfg: "DictConfig", parsed: "list[Override]") -> dict[str, Any]:
    """The values that a file lists for settings, less those that the command sets itself."""
    given = {override.key_or_group for override in parsed}
    params = dict(cfg.hydra.sweeper.get("params") or {}) if is_sweep(cfg) else {}
    return {str(key): values for key, values in params.items() if str(key) not in given}


def faults_of(tree: Mapping[str, Any], checks: Sequence[Callable[[Config], None]]) -> tuple[Fault, ...]:
    """Return what `bind`, or else a check, finds wrong in a tree."""
    try:
        config = bound(tree)
        for check in checks:
            check(config)
    except Mistake as found:
        return found.faults
    return ()


def is_sweep(cfg: "DictConfig") -> bool:
    """Whether a sweep file has turned a command into many runs."""
    return cfg.hydra.mode is not None and cfg.hydra.mode.name == "MULTIRUN"


def variant(tree: Mapping[str, Any], parsed: "list[Override]", other: "Override") -> dict[str, Any]:
    """The tree with one value of a sweep in its place; an option of a group is composed anew, for what it brings in."""
    from hydra import compose

    if other.key_or_group in known_groups() or other.package:
        return to_tree(compose("config", [*map(loose, parsed), loose(other)]))
    changed = deepcopy(dict(tree))
    *path, name = other.key_or_group.split(".")
    node: Any = changed
    for part in path:
        node = node.setdefault(part, {}) if isinstance(node, dict) else {}
    if isinstance(node, dict):
        node[name] = other.value()
    return changed


def variants(cfg: "DictConfig", parsed: "list[Override]") -> "Iterator[Override]":
    """Overrides that stand for a sweep's other values, one changed at a time."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    listed = [parser.parse_override(f"{key}={values}") for key, values in swept(cfg, parsed).items()]
    for override in [*parsed, *listed]:
        for value in values_of(override)[0 if override in listed else 1 :]:
            yield parser.parse_override(f"{override.get_key_element()}={value}")


def parse(overrides: list[str]) -> "tuple[list[Override], list[Fault]]":
    """Parse overrides and look up their groups and options: those that stand, and what is wrong with the others."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed: list[Override] = []
    faults: list[Fault] = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            faults.append(
                Fault(text, "is no setting", "write key=value, with quotes around a value that has , = or []")
            )
            continue
        wrong = list(group_faults(override))
        faults += wrong
        if not wrong:
            parsed.append(override)
    return parsed, faults


def group_faults(override: "Override") -> Iterator[Fault]:
    """An unknown group, or an unknown option of a known one."""
    groups = known_groups()
    name = override.key_or_group
    if name in groups:
        for value in values_of(override):
            if value not in groups[name]:
                hint = close_to(value, groups[name]) or f"there is {', '.join(groups[name]) or 'none yet'}"
                yield Fault(name, f"no option {value!r}", hint)
    elif "/" in name and not name.startswith("hydra/"):
        yield Fault(name, "unknown group", close_to(name, list(groups)) or f"there is {', '.join(groups)}")


def values_of(override: "Override") -> list[str]:
    """The values that an override stands for: one, or each of a sweep, or the ends of an interval."""
    if override.is_sweep_override() and override.is_discrete_sweep():
        return [str(value) for value in override.sweep_string_iterator()]
    if override.is_interval_sweep():
        ends: Any = override.value()
        whole = "int" in ends.tags
        return [str(int(end) if whole else end) for end in (ends.start, ends.end)]
    return [str(override.get_value_element_as_str())]


def loose(override: "Override") -> str:
    """The same override as Hydra takes it without checks: `bind` says better what is wrong with it."""
    name, value = override.key_or_group, values_of(override)[0]
    if override.is_delete():
        return str(override.input_line)
    if name in known_groups() or name.startswith("hydra") or override.package:
        return f"{override.get_key_element()}={value}"
    return f"++{name}={value}"


def is_nothing(argument: str) -> bool:
    """Whether an argument leaves out a group that is left out anyway; Hydra has no words for it."""
    return argument in {f"{group}={nothing}" for group in OPTIONAL for nothing in ("null", "None")}


OPTIONAL = ("model/adapter", "experiment", "sweep")  # the groups that conf/config.yaml sets to null


def continued(arguments: list[str]) -> list[str]:
    """Let `method=cai method.then=ppo` name the method that goes on so: what comes after a phase is one of its own."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    if given.get("method") != "cai" or THEN not in given:
        return arguments
    if (then := given[THEN]) not in ("dpo", "ppo"):
        raise mistake(THEN, f"{then!r} is none of dpo, ppo", close_to(then, ["dpo", "ppo"]))
    rest = [argument for argument in arguments if not argument.startswith(f"{THEN}=")]
    return ["method=cai_ppo" if argument == "method=cai" and then == "ppo" else argument for argument in rest]


THEN = "method.then"


def own_file(argument: str) -> str:
    """Let `experiment=` and `constitution=` take a file anywhere, such as the config that a run has saved."""
    key, _, value = argument.partition("=")
    path = Path(value).expanduser()
    if key not in OWN or path.suffix not in {".yaml", ".yml"}:
        return argument
    if not path.is_file():
        article = "an" if key == "experiment" else "a"
        raise mistake(key, f"{value} is not there", f"give a YAML file, or the name of {article} {key}")
    if key == "constitution":
        from alignlab.config.constitution import read

        read(path)  # says every fault with its line
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        node = OmegaConf.load(path)
    except (YAMLError, UnicodeDecodeError) as error:
        raise failure(value, f"is no YAML ({' '.join(str(error).split())[:120]})") from error
    name = f"file_{path.stem}"
    OWN[key].append(name)
    ConfigStore.instance().store(name=name, node=node, group=key, package="_global_" if key == "experiment" else key)
    return f"{key}={name}"


def to_tree(cfg: "DictConfig") -> dict[str, Any]:
    """A composed config as plain values, without Hydra's own node and the groups that leave nothing of their own."""
    from omegaconf import OmegaConf

    keys = [str(key) for key in cfg if key not in {"hydra", "experiment"}]
    tree = OmegaConf.to_container(OmegaConf.masked_copy(cfg, keys), resolve=True)
    return {str(key): value for key, value in dict(tree).items() if key not in SHARED}  # type: ignore[arg-type]


def bound(tree: Mapping[str, Any]) -> Config:
    """Bind a tree with the shapes of the methods that it names."""
    shapes: dict[str, type[Settings]] = {place: shape(node) for place, node in method_nodes(tree)}
    if isinstance(tree.get("preferences"), Mapping):
        from alignlab.config.preferences import Preferences

        shapes["preferences"] = Preferences
    return bind(tree, shapes)


def method_nodes(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The places of a tree that hold a method's settings."""
    if isinstance(tree.get("method"), Mapping):
        yield "method", tree["method"]
    for name, node in (tree.get("stages") or {}).items():
        yield f"stages.{name}", node


def shape(node: Any) -> type[Method]:
    """The `Config` of the method that a node names."""
    name = node.get("name") if isinstance(node, Mapping) else None
    known = known_groups()["method"]
    if name not in known:
        raise mistake(
            "method.name", f"{name!r} is no method", close_to(str(name), known) or f"there is {', '.join(known)}"
        )
    module = import_module(f"alignlab.methods.{name}")
    found: type[Method] = module.Config
    return found
