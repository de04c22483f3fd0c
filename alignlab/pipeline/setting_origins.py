"""Describe the decisive settings of a stage for the plan, and where each value comes from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from alignlab.config.groups import Groups
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
    """Return where the value at a place comes from: the command line, the experiment, or a file of conf/."""
    if place in config.typed:
        return "command line"
    experiment = config.choices.get("experiment")
    if experiment and place in keys_of_experiment(str(experiment)):
        return f"experiment={experiment}"
    return config.origins.get(place) or f"conf/method/{settings.name}.yaml"


def keys_of_experiment(name: str) -> set[str]:
    """Return the settings that an experiment's file sets, and those of the experiments that it builds on."""
    file = Groups().file("experiment", name)
    if file is None:  # a file that the command names by its path
        return set()
    values = read(file)
    bases = [entry for entry in values.pop("defaults", ()) if isinstance(entry, str) and entry != "_self_"]
    return set(places(values)).union(*map(keys_of_experiment, bases))


def read(file: Path) -> dict[str, Any]:
    """Read a YAML file."""
    return dict(yaml.safe_load(file.read_text(encoding="utf-8")) or {})


def places(tree: Any, above: str = "") -> Iterator[str]:
    """Yield the place of each value in a tree."""
    for name, value in tree.items():
        yield f"{above}{name}"
        if isinstance(value, dict):
            yield from places(value, f"{above}{name}.")
