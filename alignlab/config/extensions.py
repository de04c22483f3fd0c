"""Find the module behind an option: a built-in one, one of an installed package, or one of the user's own project.

A user's project mirrors this one: `conf/method/kto.yaml` holds the values of a method, and `methods/kto.py`, in the
folder where the command is given, holds its code. An installed package announces modules by entry points instead:
`[project.entry-points."alignlab.methods"] kto = "its_package.kto"`. Built-in modules come first, so that no name can be
taken over; then entry points; then the current folder.
"""

import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from alignlab.config import user_function
from alignlab.errors import mistake


class Kind(NamedTuple):
    """What can be added: the group of `conf/` whose options it holds, and the package of the built-in modules, if any.

    `modules` names the module of an option where the two names differ.
    """

    group: str
    package: str | None
    modules: Mapping[str, str] = {}


KINDS = {
    "methods": Kind("method", "alignlab.methods"),
    "measures": Kind("measure", "alignlab.evaluation.measures"),
    "rewards": Kind(
        "reward",
        "alignlab.rewards",
        {"model": "reward_model", "url": "http_server", "judge": "chat_judge"},
    ),
    "judges": Kind(
        "judge",
        "alignlab.judges",
        {
            "reward": "by_reward",
            "choice": "pairwise_model",
            "critique": "pairwise_model",
            "both": "pairwise_model",
            "annotators": "pocket_annotators",
            "human": "human_tables",
            "openai": "chat_server",
        },
    ),
    "formats": Kind("dataset", None),  # the built-in ones are a table, `alignlab.data.row_formats.FORMATS`
    "views": Kind("dataset", "alignlab.data.views"),
    "tasks": Kind("task", "alignlab.tasks"),
    "hardware": Kind("hardware", "alignlab.config.strategies"),
}


def module_name(kind: str, name: str) -> str | None:
    """Return the dotted name of the module of an option, without importing it; None where there is none."""
    _, package, modules = KINDS[kind]
    if not name.isidentifier():
        return None
    if package and has_module(built_in := f"{package}.{modules.get(name, name)}"):
        return built_in
    for entry in entry_points(group=f"alignlab.{kind}", name=name):
        return entry.value
    module = f"{kind}.{name}"
    return module if module in sys.modules or user_function.find(module) else None


def has_module(name: str) -> bool:
    """Return whether a module can be imported; imports the packages that hold it, not itself."""
    try:
        return name in sys.modules or find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def name_of(kind: str, name: str) -> str:
    """Return the dotted name of the module of an option; raises a `Mistake` that says where it was looked for."""
    module = module_name(kind, name)
    if module is None:
        what = f"{name} has no Python module"
        now = f"write {kind}/{name}.py in this folder ({Path.cwd()}), or install its package"
        raise mistake(KINDS[kind].group, what, now)
    return module


def load(kind: str, name: str) -> ModuleType:
    """Import the module of an option; raises a `Mistake` where there is none."""
    module = name_of(kind, name)
    if not module.startswith("alignlab."):
        user_function.import_from_here()
    return import_module(module)
