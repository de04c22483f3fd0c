"""Read YAML fast, and refuse a file whose aliases stand for more values than any config has.

A few lines can name each other so that a billion values follow ("billion laughs"), or a value can contain itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from alignlab.errors import failure

MOST = 100_000  # values of a file, aliases written out


@contextmanager
def bounded_yaml() -> Iterator[None]:
    """Make OmegaConf read YAML with libyaml, which is four times as fast as the reader in Python, and with a bound."""
    yaml: Any = import_module("yaml")
    python_loader = yaml.SafeLoader
    yaml.SafeLoader = bounded_loader()
    try:
        yield
    finally:
        yaml.SafeLoader = python_loader


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file of settings; raise a `Failure` where it is none, or is of unreasonable size."""
    yaml: Any = import_module("yaml")
    try:
        with file.open(encoding="utf-8") as stream:
            values = yaml.load(stream, bounded_loader())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise failure(str(file), f"is no YAML ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(values, dict | None):
        raise failure(str(file), f"holds a {type(values).__name__}, not settings")
    return values or {}


@cache
def bounded_loader() -> Any:
    """Return a loader of YAML with a bound; libyaml's where it is installed."""
    yaml: Any = import_module("yaml")

    class Bounded(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def get_single_node(self) -> Any:
            """Return the tree of a file; raise a `Failure` where it is no YAML, or its aliases stand for too much."""
            try:
                node = super().get_single_node()
            except yaml.YAMLError as error:
                file = getattr(getattr(error, "problem_mark", error), "name", None) or "a YAML file"
                raise failure(file, f"is no YAML ({' '.join(str(error).split())[:120]})") from error
            check(node)
            return node

    return Bounded


def check(node: Any) -> None:
    """Raise a `Failure` where a tree of YAML nodes has more than `MOST` values, contains itself, or is too deep."""
    if node is None:
        return
    try:
        number = count(node, {})
    except RecursionError:
        what = "a value contains itself, or is nested too deeply"
        raise failure(node.start_mark.name, what, "write it out") from None
    if number > MOST:
        what = f"its aliases stand for more than {MOST:,} values"
        raise failure(node.start_mark.name, what, "write out the values that you need")


def count(node: Any, known: dict[int, int]) -> int:
    """Return how many values a node stands for; `known` holds those of the nodes that were counted."""
    if id(node) not in known:
        pairs = node.value if isinstance(node.value, list) else []
        parts = [part for pair in pairs for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(count(part, known) for part in parts)
    return known[id(node)]
