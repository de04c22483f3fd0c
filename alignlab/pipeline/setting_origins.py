"""Describe the decisive settings of a stage for the plan, and where each value comes from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from alignlab.config.groups import Groups, conf_folder
from alignlab.config.method import Method
from alignlab.config.schema import Config

DECISIVE = (
    *("learning_rate", "num_train_epochs", "total_episodes", "max_steps", "batch_size", "beta", "nll_weight"),
    *("kl_coef", "head", "value", "advantage", "max_length", "max_new_tokens"),
)


def describe(config: Config, settings: Method, place: str) -> Iterator[str]:
    """Yield one line per origin of a stage's decisive settings; `place` is `method` or `stages.<name>`.

    Yields nothing for a config whose command is not known, as for one that Python code has bound.
    """
    if not config.choices:
        return
    by_origin: dict[str, list[str]] = {}
    for name in DECISIVE:
        value = getattr(settings, name, None)
        if value is not None:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            by_origin.setdefault(origin(config, settings, f"{place}.{name}"), []).append(f"{name} {text}")
    for source, values in by_origin.items():
        yield f"{', '.join(values)} ({source})"


def origin(config: Config, settings: Method, place: str) -> str:
    """Return where the value at a place comes from: the command line, the experiment, or the file of an option."""
    if place in config.typed:
        return "command line"
    experiment = config.choices.get("experiment")
    if experiment and place in keys_of_experiment(config.groups, str(experiment)):
        return f"experiment={experiment}"
    above, _, key = place.rpartition(".")
    option = str(config.choices.get("method", settings.name)) if above == "method" else settings.name
    option = option_that_sets(config.groups, option, key) or option
    file = config.groups.file("method", option)
    is_built_in = file is None or file.is_relative_to(conf_folder())
    return config.origins.get(place) or (f"conf/method/{option}.yaml" if is_built_in else str(file))


def keys_of_experiment(groups: Groups, name: str) -> set[str]:
    """Return the settings that an experiment's file sets, and those of the experiments that it builds on."""
    values, bases = values_and_bases(groups, "experiment", name)
    return set(places(values)).union(*(keys_of_experiment(groups, base) for base in bases))


def option_that_sets(groups: Groups, method: str, key: str) -> str | None:
    """Return the method whose file sets a setting: the method's own, or the last that it extends; None for no file."""
    values, bases = values_and_bases(groups, "method", method)
    if key in values:
        return method
    setting = (option_that_sets(groups, base, key) for base in reversed(bases))
    return next((option for option in setting if option), None)


def values_and_bases(groups: Groups, group: str, option: str) -> tuple[dict[str, Any], list[str]]:
    """Return the values in an option's file, and the options of the group that it builds on; both empty without one."""
    file = groups.file(group, option)
    values = read(file) if file else {}
    bases = [entry for entry in values.pop("defaults", ()) if isinstance(entry, str) and entry != "_self_"]
    return values, bases


def read(file: Path) -> dict[str, Any]:
    """Read a YAML file."""
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")) or {})


def places(tree: Any, above: str = "") -> Iterator[str]:
    """Yield the place of each value in a tree."""
    for name, value in tree.items():
        yield f"{above}{name}"
        if isinstance(value, dict):
            yield from places(value, f"{above}{name}.")
