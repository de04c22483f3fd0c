"""Compose a command as Hydra would, and report all of its faults.

Hydra stops at the first fault. This file looks up unknown groups and options itself, composes the rest without Hydra's
checks, and passes the tree to `bind`, so that one message holds all faults. The values of a sweep are checked one at a
time.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.config import command_line, credentials
from alignlab.config.bind import as_typed, bind
from alignlab.config.credentials import variable_faults
from alignlab.config.groups import Groups, conf_folder
from alignlab.config.overrides import parse, sweep_faults, unchecked, values_of
from alignlab.config.schema import Config
from alignlab.config.yaml_files import bounded_yaml
from alignlab.errors import Fault, Mistake, mistake

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


SHARED = {"constitution", "judge"}  # groups that methods copy into their own settings
Check = Callable[[Config], None]  # raises a `Mistake` where a bound config cannot be run


class Command(NamedTuple):
    """A composed command: its tree, and for a sweep one more tree per value, with only that value changed.

    `name` is that of the sweep, experiment or method. `params` are the values that a sweep file lists for settings.
    """

    trees: list[dict[str, Any]]
    several: bool
    sweep_folder: str
    name: str = "sweep"
    params: Mapping[str, Any] = {}
    groups: Groups = Groups()
    choices: Mapping[str, Any] = {}
    typed: tuple[str, ...] = ()  # the settings that the command names


def compose(*overrides: str, config_dir: str | None = None) -> Config:
    """Compose and bind a command in this process, as `python -m alignlab OVERRIDES --config-dir CONFIG_DIR` would.

    Raises a `Mistake` that holds every fault of the command. Composes one run: a value with commas is refused.
    """
    own_folder = [command_line.config_dir(config_dir)] if config_dir else []
    arguments, groups = command_line.read([*own_folder, *overrides])
    with command_line.stored(groups):
        command = check(arguments, binds=True, groups=groups)
    if command.several or len(command.trees) > 1:
        raise mistake("compose", "several values stand for several runs", "compose one at a time")
    return bind_tree(command.trees[0], groups).chosen(command.choices, command.typed)


def check(
    overrides: list[str],
    binds: bool,
    checks: Sequence[Check] = (),
    groups: Groups | None = None,
    multirun: bool = True,
) -> Command:
    """Compose a command; raises one `Mistake` with all of its faults.

    With `binds`, each tree is bound and passed to every function of `checks`. A `Mistake` that a check raises is
    reported with the others. Without `multirun`, a setting with several values is a fault, unless a sweep is chosen.
    """
    groups = groups or Groups()
    parsed, faults = parse(overrides, groups)
    command, hydra_faults = compose_with_hydra(parsed, groups)
    if command is None:
        raise Mistake(list(map(without_secrets, [*faults, *hydra_faults])))
    if not (multirun or command.several):
        faults += sweep_faults(parsed)
    unknown = tuple(fault.where for fault in faults)  # the settings of a misspelt option are not known
    for tree in command.trees:
        faults += map(as_typed, credentials.faults(tree))
    for tree in command.trees if binds else ():
        faults += [fault for fault in faults_of(tree, checks, groups) if not fault.where.startswith(unknown)]
    if faults:
        raise Mistake(list(dict.fromkeys(map(without_secrets, faults))))
    return command


def compose_with_hydra(parsed: "list[Override]", groups: Groups) -> tuple[Command | None, list[Fault]]:
    """Compose overrides with Hydra; return the command, or None and the fault that Hydra reports."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_folder()), version_base=None), bounded_yaml():
        try:
            first = hydra_compose(
                "config", [unchecked(override, groups) for override in parsed], return_hydra_config=True
            )
            if secret := [*variable_faults(unresolved(first)), *override_faults(parsed)]:
                return None, secret
            tree = to_tree(first)
            trees = [variant(tree, parsed, other, groups) for other in variants(first, parsed)]
            params = swept(first, parsed)
            command = Command(
                [tree, *trees],
                is_sweep(first),
                sweep_folder(first),
                name_of(first),
                params,
                groups,
                choices_of(first),
                typed_in(first),
            )
        except (HydraException, OmegaConfBaseException) as error:
            return None, [hydra_fault(str(error))]
    return command, []


def without_secrets(fault: Fault) -> Fault:
    """Return a fault without the passwords, keys and tokens in the values that it repeats."""
    return Fault(*map(credentials.redacted, fault))


def unresolved(cfg: "DictConfig") -> Any:
    """Return a composed config as plain values, with its interpolations as they are written."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(cfg, resolve=False)


def override_faults(parsed: "list[Override]") -> Iterator[Fault]:
    """Yield a fault for each override with a secret in one of its values, which may be several."""
    for override in parsed:
        text = str(override.input_line).partition("=")[2]
        for fault in (*variable_faults(text), *credentials.faults(text)):
            yield fault._replace(where=override.key_or_group)


def sweep_folder(cfg: "DictConfig") -> str:
    """Return the folder of a sweep's runs; it is resolved once, since it may contain the time."""
    from hydra.core.hydra_config import HydraConfig

    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(cfg)
    try:
        return str(cfg.hydra.sweep.dir)
    finally:
        HydraConfig.instance().cfg = before


def hydra_fault(message: str) -> Fault:
    """Build the fault for an error of Hydra; a launcher that is not installed gets a message of its own."""
    message = " ".join(message.split())
    if launcher := re.search(r"'hydra/launcher/(\w+)'.*'hydra/launcher': ([\w ]+?) Config", message):
        installed = launcher[2].replace(" ", ", ")
        now = f"there is {installed}; pip install 'alignlab[launchers]' brings joblib and submitit"
        return Fault("hydra/launcher", f"no option {launcher[1]!r}", now)
    return Fault("command", message)


def choices_of(cfg: "DictConfig") -> dict[str, Any]:
    """Return the option of each group that was chosen."""
    from omegaconf import OmegaConf

    choices: Any = OmegaConf.to_container(cfg.hydra.runtime.choices)
    return {str(group): option for group, option in choices.items()}


def typed_in(cfg: "DictConfig") -> tuple[str, ...]:
    """Return the settings that a command names."""
    return tuple(str(override).partition("=")[0].lstrip("+~") for override in cfg.hydra.overrides.task)


def name_of(cfg: "DictConfig") -> str:
    """Return the name of a sweep: its file, or the experiment, or the method."""
    chosen = dict(cfg.hydra.runtime.choices)
    return str(chosen.get("sweep") or chosen.get("experiment") or chosen["method"])


def swept(cfg: "DictConfig", parsed: "list[Override]") -> dict[str, Any]:
    """Return the values that a sweep file lists for settings, without the settings that the command sets."""
    typed = {override.key_or_group for override in parsed}
    params = dict(cfg.hydra.sweeper.get("params") or {}) if is_sweep(cfg) else {}
    return {str(key): values for key, values in params.items() if str(key) not in typed}


def faults_of(tree: Mapping[str, Any], checks: Sequence[Check], groups: Groups) -> tuple[Fault, ...]:
    """Return the faults that `bind` finds in a tree, or else those of the checks."""
    try:
        config = bind_tree(tree, groups)
        for check in checks:
            check(config)
    except Mistake as error:
        return error.faults
    return ()


def is_sweep(cfg: "DictConfig") -> bool:
    """Return whether a sweep file makes several runs of the command."""
    return cfg.hydra.mode is not None and cfg.hydra.mode.name == "MULTIRUN"


def variant(tree: Mapping[str, Any], parsed: "list[Override]", other: "Override", groups: Groups) -> dict[str, Any]:
    """Return the tree with one value of a sweep in its place; for an option of a group the tree is composed again."""
    from hydra import compose as hydra_compose

    if other.key_or_group in groups.options or other.package:
        return to_tree(
            hydra_compose("config", [*(unchecked(override, groups) for override in parsed), unchecked(other, groups)])
        )
    changed = deepcopy(dict(tree))
    *path, name = other.key_or_group.split(".")
    node: Any = changed
    for part in path:
        node = node.setdefault(part, {}) if isinstance(node, dict) else {}
    if isinstance(node, dict):
        node[name] = other.value()
    return changed


def variants(cfg: "DictConfig", parsed: "list[Override]") -> "Iterator[Override]":
    """Yield one override per further value of a sweep."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    listed = [parser.parse_override(f"{key}={values}") for key, values in swept(cfg, parsed).items()]
    for override in [*parsed, *listed]:
        for value in values_of(override)[0 if override in listed else 1 :]:
            yield parser.parse_override(f"{override.get_key_element()}={value}")


def to_tree(cfg: "DictConfig") -> dict[str, Any]:
    """Return a composed config as plain values, without Hydra's own node and the shared groups."""
    from omegaconf import OmegaConf

    keys = [str(key) for key in cfg if key not in {"hydra", "experiment"}]
    tree = OmegaConf.to_container(OmegaConf.masked_copy(cfg, keys), resolve=True)
    return {str(key): value for key, value in dict(tree).items() if key not in SHARED}  # type: ignore[arg-type]


def bind_tree(tree: Mapping[str, Any], groups: Groups | None = None) -> Config:
    """Bind a tree with the settings classes of the options that it names; raises a `Mistake` with every fault."""
    from alignlab.config.by_model import fill_in
    from alignlab.config.settings_classes import method_names, settings_classes

    groups = groups or Groups()
    classes = settings_classes(tree, groups)
    filled = fill_in(tree, method_names(tree, classes), groups)
    return bind(filled.tree, classes, groups).with_origins(filled.origins, groups)
