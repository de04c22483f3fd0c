"""Read a command's arguments: the overrides for Hydra, and the groups that they may choose from.

Three forms are not Hydra's own: a YAML file by its path (`experiment=mine.yaml`), leaving out a group that is empty by
default (`sweep=null`), and `method=cai method.then=ppo`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config.groups import GIVEN_BY_PATH, Groups, conf_folder
from alignlab.config.quoting import in_quotes, quote_value, split_values
from alignlab.config.settings import path_in_home
from alignlab.config.suggestions import close_to
from alignlab.config.yaml_files import bounded_yaml
from alignlab.errors import failure, mistake

OPTIONAL = ("model/adapter", "experiment", "sweep")  # the groups that conf/config.yaml sets to null
SEARCH_PATH = "hydra.searchpath"
THEN = "method.then"


class CommandLine(NamedTuple):
    """Overrides, and the groups that they choose from."""

    overrides: list[str]
    groups: Groups


def read(arguments: Sequence[str]) -> CommandLine:
    """Read overrides as a user types them; raises a `Mistake` where a file or folder in them does not exist."""
    kept = [argument for argument in arguments if not leaves_out(argument)]
    chosen: dict[str, dict[str, Path]] = {}
    overrides = with_cai_ppo([quote_value(option_of_file(argument, chosen)) for argument in kept])
    return CommandLine(overrides, Groups((conf_folder(), *search_path(overrides)), chosen))


def leaves_out(argument: str) -> bool:
    """Return whether an argument leaves out an optional group (`sweep=null`), which Hydra would refuse."""
    return argument in {f"{group}={null}" for group in OPTIONAL for null in ("null", "None")}


def with_cai_ppo(arguments: list[str]) -> list[str]:
    """Replace `method=cai method.then=ppo` by `method=cai_ppo`, and drop `method.then=dpo`, the default of cai."""
    typed = dict(argument.partition("=")[::2] for argument in arguments)
    if typed.get("method") != "cai" or THEN not in typed:
        return arguments
    if (then := typed[THEN]) not in ("dpo", "ppo"):
        raise mistake(THEN, f"{then!r} is none of dpo, ppo", close_to(then, ["dpo", "ppo"]))
    rest = [argument for argument in arguments if not argument.startswith(f"{THEN}=")]
    return ["method=cai_ppo" if argument == "method=cai" and then == "ppo" else argument for argument in rest]


def option_of_file(argument: str, chosen: dict[str, dict[str, Path]]) -> str:
    """Replace the paths in `experiment=` or `constitution=` by names of options, and add their files to `chosen`."""
    key, _, value = argument.partition("=")
    if key not in GIVEN_BY_PATH:
        return argument
    values = [value] if path_in_home(Path(value)).is_file() else split_values(value)
    return f"{key}={','.join(name_of_file(key, text, chosen.setdefault(key, {})) for text in values)}"


def name_of_file(key: str, value: str, chosen: dict[str, Path]) -> str:
    """Return the name of the option that a YAML file becomes; any other value is returned unchanged."""
    path = path_in_home(Path(value.strip("'\"")))
    if path.suffix not in {".yaml", ".yml"}:
        return value
    if not path.is_file():
        article = "an" if key == "experiment" else "a"
        raise mistake(key, f"{value} is not there", f"give a YAML file, or the name of {article} {key}")
    if key == "constitution":
        from alignlab.config.constitution import read as read_constitution

        read_constitution(path)  # raises a message for every fault, with its line
    name = "file_" + re.sub(r"[^\w-]", "_", path.stem, flags=re.ASCII)
    while chosen.get(name, path.absolute()) != path.absolute():
        name += "_"
    chosen[name] = path.absolute()
    return name


def search_path(overrides: Sequence[str]) -> list[Path]:
    """Return the folders that `hydra.searchpath` or `--config-dir` adds."""
    from yaml import safe_load

    values = [text.partition("=")[2] for text in overrides if text.startswith(f"{SEARCH_PATH}=")]
    return [folder_of(str(entry)) for value in values for entry in safe_load(value)]


def folder_of(entry: str) -> Path:
    """Return the folder that an entry of Hydra's search path names: `file://…`, `pkg://…`, or a path."""
    scheme, separator, rest = entry.partition("://")
    if separator and scheme == "pkg":
        try:
            return Path(str(files(rest)))
        except ModuleNotFoundError as error:
            raise mistake(
                SEARCH_PATH, f"{entry}: there is no package {rest}", "install it, or give a folder"
            ) from error
    folder = path_in_home(Path(rest if separator else entry)).absolute()
    if not folder.is_dir():
        raise mistake(SEARCH_PATH, f"{folder} is not a folder", "give the folder that holds your groups, such as conf")
    return folder


def config_dir(folder: str) -> str:
    """Return the override that `--config-dir FOLDER` stands for."""
    return f"{SEARCH_PATH}=[{in_quotes(f'file://{folder_of(folder)}')}]"


@contextmanager
def stored(groups: Groups) -> Iterator[None]:
    """Register the files that a command names by their path with Hydra, inside the `with` block."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    for group, options in groups.files.items():
        for name, path in options.items():
            package = "_global_" if group == "experiment" else group
            store.store(name=name, node=loaded(path), group=group, package=package)
    try:
        yield
    finally:
        for group, options in groups.files.items():
            for name in options:
                store.repo.get(group, {}).pop(f"{name}.yaml", None)


def loaded(path: Path) -> Mapping[Any, Any]:
    """Read a YAML file; raises a `Failure` where it is not valid YAML."""
    from omegaconf import OmegaConf
    from yaml import YAMLError

    try:
        with bounded_yaml():
            node: Any = OmegaConf.load(path)
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise failure(str(path), f"is no YAML ({' '.join(str(error).split())[:120]})") from error
    return node  # type: ignore[no-any-return]
