"""Read a YAML file of `conf/` with its comments: its keys, its description, and the files that it builds on."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


class Key(NamedTuple):
    """One key of a YAML file."""

    path: tuple[str, ...]
    default: str  # the value on one line, `{a: 1}` included; empty where the key holds further keys
    comment: str  # the comment lines above it, or the one behind it
    is_group: bool


class Package(NamedTuple):
    """Where an entry of `defaults` puts what it brings in: `@gates`, `@_global_.stages.sft`."""

    path: tuple[str, ...]
    is_global: bool

    def place(self, above: tuple[str, ...]) -> tuple[str, ...]:
        """Return the full place, for an entry in a file that lies at `above`."""
        return self.path if self.is_global else (*above, *self.path)


class Entry(NamedTuple):
    """One entry of `defaults`; `option` is None where nothing is chosen."""

    group: str
    option: str | None
    package: Package | None
    is_override: bool


def description(file: Path) -> str:
    """Return the first comment of a file, which says what the file is."""
    return next((text for text in map(comment_of, lines_of(file)) if text and "@package" not in text), "")


def notes(file: Path) -> str:
    """Return the comments between a file's description and its `defaults`, on one line."""
    lines = [line for line in lines_of(file) if "@package" not in line]
    above = lines[: lines.index("defaults:")] if "defaults:" in lines else []
    return " ".join(comment_of(line) for line in above[1:] if comment_of(line))


def read_package(file: Path, group: str) -> tuple[str, ...]:
    """Return the place of a file's keys: its `@package`, else the path of its group."""
    header = next((line for line in lines_of(file) if line.startswith("# @package ")), f"# @package {group}")
    package = header.removeprefix("# @package ").strip().replace("/", ".")
    return () if package in ("", "_global_") else tuple(package.split("."))


@cache
def read_defaults(file: Path) -> list[Entry]:
    """Return the entries of a file's `defaults`; a choice of several options is several entries."""
    return [one for entry in read_tree(file).get("defaults", ()) for one in read_entry(entry)]


@cache
def read_tree(file: Path) -> dict[str, Any]:
    """Return the values of a file, `defaults` included."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(file.read_text(encoding="utf-8"), loader) or {}


def read_entry(entry: str | dict[str, str | list[str] | None]) -> list[Entry]:
    """Read `_self_`, `name`, `name@package`, `group: name` or `override /group@package: name`."""
    if isinstance(entry, str):
        option, _, package = entry.partition("@")
        return [Entry("", option, read_entry_package(package), False)]
    ((place, chosen),) = entry.items()
    is_override = place.startswith("override ")
    group, _, package = place.removeprefix("override ").lstrip("/").partition("@")
    options = chosen if isinstance(chosen, list) else [chosen]
    return [Entry(group, option, read_entry_package(package), is_override) for option in options]


def read_entry_package(text: str) -> Package | None:
    """Read what stands behind `@`."""
    if not text:
        return None
    path = tuple(text.split("."))
    return Package(path[1:], True) if path[0] == "_global_" else Package(path, False)


@cache
def read_keys(file: Path) -> list[Key]:
    """Return every key of a file but `defaults`, in order, with those inside lists (`principles.0.name`)."""
    import yaml

    text = file.read_text(encoding="utf-8")
    root = yaml.compose(text, yaml.SafeLoader)
    return [key for key in keys_below(root, (), text) if key.path[0] != "defaults"] if root else []


def keys_below(node: Any, path: tuple[str, ...], text: str) -> Iterator[Key]:
    """Yield the keys of a YAML node, at any depth."""
    if node.id == "sequence":
        for place, inner in enumerate(node.value):
            yield from keys_below(inner, (*path, str(place)), text)
    for name, value in node.value if node.id == "mapping" else ():
        here = (*path, str(name.value))
        entries = value.value if value.id == "sequence" else [value]
        is_group = any(entry.id == "mapping" and not entry.flow_style for entry in entries)
        yield Key(here, "" if is_group else one_line(value, text), comment_at(name, value, text), is_group)
        if is_group:
            yield from keys_below(value, here, text)


def one_line(node: Any, text: str) -> str:
    """Return a value as it is written, on one line; block text and block lists are joined."""
    if node.id == "scalar" and node.style in {">", "|"}:
        return str(node.value).strip()
    if node.id == "sequence" and not node.flow_style:
        return f"[{', '.join(one_line(inner, text) for inner in node.value)}]"
    return " ".join(text[node.start_mark.index : node.end_mark.index].split())


def comment_at(name: Any, value: Any, text: str) -> str:
    """Return the comment of a key: the one behind it, else the lines above it that belong to no other key."""
    lines = text.splitlines()
    end = name.end_mark if value.id != "scalar" and not value.flow_style else value.end_mark
    behind = re.search(r"^:?\s+#\s?(.*)$", lines[end.line][end.column :]) if end.line < len(lines) else None
    if behind and getattr(value, "style", None) not in {">", "|"}:
        return behind[1].strip()
    first = next((place for place, line in enumerate(lines) if comment_of(line) and "@package" not in line), -1)
    above: list[str] = []
    for place in range(name.start_mark.line - 1, first, -1):
        if not (comment := comment_of(lines[place])):
            break
        above.insert(0, comment)
    return " ".join(above)


def comment_of(line: str) -> str:
    """Return the text of a line that holds a comment alone, else nothing."""
    line = line.strip()
    return line[1:].strip() if line.startswith("#") else ""


@cache
def lines_of(file: Path) -> list[str]:
    """Return the lines of a file."""
    return file.read_text(encoding="utf-8").splitlines()
