"""The fields of a row, which remember those that a format has read, and the ways to read text from them.

Names are looked up without case, and with underscores between words: `Positive Option` and `positiveOption` are
`positive_option`.
A field is held if it has a value: null, NaN, blank text and an empty list hold nothing.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from io import StringIO
from itertools import pairwise
from tokenize import NL, STRING, generate_tokens
from typing import Any, NamedTuple

from alignlab.chat import Turn
from alignlab.data.media import media_kind

BETWEEN_WORDS = re.compile(r"[\s\-]+|(?<=[a-z0-9])(?=[A-Z])")
SHORTEST_NAME = 5  # letters; a letter more or less makes another word of a shorter name
LARGEST_STRUCTURE = 1 << 20  # characters of a cell that is read as JSON or as a Python literal


class Draft(NamedTuple):
    """The prompt and the completions of a row before validation; `notes` are faults that were tolerated.

    `label` is the probability that the first completion is the better one; of a single completion it is 1, or 0 for an
    answer that is marked as bad. `weight` is the weight of a pair. `cut_off` are the places of the completions that did
    not end by themselves. `context` are the places of the prompt's answers that are not learned, from the prompt's end.
    `rated` says that the row itself labels its single completion, and `harms` are the kinds of harm that it names.
    """

    prompt: list[Turn]
    completions: list[str]
    notes: tuple[str, ...] = ()
    label: float = 1.0
    weight: float = 1.0
    cut_off: tuple[int, ...] = ()
    context: tuple[int, ...] = ()
    rated: bool = False
    harms: tuple[str, ...] = ()


class Broken(Exception):
    """A row that does not match its format: the field, the reason, what was expected, and a setting that helps."""

    def __init__(self, field: str, reason: str, expected: str, remedy: str = "") -> None:
        self.field, self.reason, self.expected, self.remedy = field, reason, expected, remedy
        super().__init__(f"{field}: {reason}; expected {expected}")


class LeftOut(Exception):
    """A row that its own columns exclude, such as a weight of 0; it is counted, and it is no fault."""


class FieldNames(dict[str, str | None]):
    """Map each name to the one that a row writes, or to None; rows with the same fields share it.

    `kept` are the names of the fields that are not ignored, `media` those of them that hold images, sounds or films,
    each with its kind.
    """

    def __init__(self, names: tuple[str, ...], ignored: frozenset[str], path: str) -> None:
        kept = [
            name
            for name in names
            if not {canonical(name), canonical(path + name), media_kind(canonical(name))} & ignored
        ]
        super().__init__(zip(kept, kept, strict=True))
        self.kept = tuple(kept)
        self.media = [(name, kind) for name in kept if (kind := media_kind(canonical(name)))]
        self.originals = {canonical(name): name for name in reversed(names)}
        self.subsets: dict[tuple[str, ...], list[str]] = {}

    def __missing__(self, name: str) -> str | None:
        written = self.originals.get(canonical(name))
        self[name] = written = written if written in self.kept else None
        return written

    def among(self, names: tuple[str, ...]) -> list[str]:
        """Return those of the names that the row has."""
        known = self.subsets.get(names)  # hashing the names takes longer than all else
        if known is None:
            known = self.subsets[names] = [name for name in names if self[name] is not None]
        return known


class RowFields(Mapping[str, Any]):
    """The fields of a row or of a part of it; fields that are read are remembered, ignored fields are absent."""

    def __init__(self, values: Mapping[str, Any], ignored: frozenset[str] = frozenset(), path: str = "") -> None:
        self.ignored, self.path = ignored, path
        self.names = field_names(tuple(values), ignored, path)
        self.values_by_name = {name: values[name] for name in self.names.kept}
        self.held_names = {name for name, value in self.values_by_name.items() if is_held(value)}
        self.read: set[str] = set()
        self.parts: list[RowFields] = []
        self.notes: list[str] = []

    def original(self, name: str) -> str | None:
        """Return the name as the row writes it; None if the row has no such field."""
        return self.names[name]

    def __getitem__(self, name: str) -> Any:
        written = self.names[name]
        if written is None:
            raise KeyError(name)
        self.read.add(written)
        return self.values_by_name[written]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.names[name] is not None

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a field, or the default; an absent field raises no exception inside."""
        return default if self.names[name] is None else self[name]

    def holds(self, name: str) -> bool:
        """Return whether a field holds a value, without reading it."""
        return self.names[name] in self.held_names

    def held(self, names: tuple[str, ...]) -> list[str]:
        """Return those of the names whose fields hold a value, in their order, without reading them."""
        present = self.names.among(names)
        return [name for name in present if self.holds(name)] if present else []

    def peek(self, name: str) -> Any:
        """Return a value without reading the field; None if the row has no such field."""
        written = self.names[name]
        return None if written is None else self.values_by_name[written]

    def part(self, name: str, values: Mapping[str, Any]) -> "RowFields":
        """Return the fields of an object inside a field."""
        inner = RowFields(values, self.ignored, f"{self.path}{name}.")
        self.parts.append(inner)
        return inner

    def unread(self) -> Iterator[tuple[str, Any]]:
        """Yield the names and values of the fields that hold something and were not read."""
        for name, value in self.values_by_name.items():
            if name not in self.read and name in self.held_names:
                yield self.path + name, value
        for part in self.parts:
            yield from part.unread()

    def all_notes(self) -> Iterator[str]:
        """Yield the notes of the row and of its parts."""
        yield from self.notes
        for part in self.parts:
            yield from part.all_notes()


@lru_cache(maxsize=256)
def field_names(names: tuple[str, ...], ignored: frozenset[str], path: str) -> FieldNames:
    """Return the names of a row's fields, from a cache."""
    return FieldNames(names, ignored, path)


def fields_of(values: Mapping[str, Any]) -> RowFields:
    """Return a mapping as `RowFields`."""
    return values if isinstance(values, RowFields) else RowFields(values)


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """Return a name without case, and with underscores between its words."""
    return BETWEEN_WORDS.sub("_", name.strip("\ufeff\xa0 \t\r\n:")).casefold()


def is_misspelt(name: str, known: str) -> bool:
    """Return whether a name has one letter more, less or other than a known name, or two letters swapped.

    A singular is no misspelt plural.
    """
    same = next(
        (place for place, (a, b) in enumerate(zip(name, known, strict=False)) if a != b), min(len(name), len(known))
    )
    rest, other = name[same:], known[same:]
    swapped = rest[1::-1] == other[:2] and rest[2:] == other[2:]
    is_close = rest[1:] == other[1:] or rest == other[1:] or rest[1:] == other or swapped
    return is_close and name.rstrip("s") != known.rstrip("s") and min(len(name), len(known)) >= SHORTEST_NAME


def is_held(value: Any, depth: int = 3) -> bool:
    """Return whether a value is more than null, NaN, blank text, or a list or an object of these."""
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, float):
        return value == value
    if isinstance(value, list | Mapping):
        inner = value.values() if isinstance(value, Mapping) else value
        return any(is_held(one, depth - 1) for one in inner) if depth else bool(value)
    return value is not None


def note(fields: Mapping[str, Any], text: str) -> None:
    """Record a fault that is tolerated."""
    if isinstance(fields, RowFields):
        fields.notes.append(text)


def pick(fields: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """Return the first of these fields that holds a value; else the first that the row has; else None."""
    row = fields_of(fields)
    present = row.names.among(names if isinstance(names, tuple) else tuple(names))
    for name in present:
        if row.holds(name):
            return name
    return present[0] if present else None


def parse_text(fields: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the first of these fields that the row holds; it must be text; null counts as empty text."""
    name = pick(fields, names)
    if name is None:
        raise Broken(names[0], "the field is missing", "text")
    value = fields[name]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Broken(name, f"the field is {type_name(value)}", "text")
    return value


def decode(value: Any) -> Any:
    """Return the list or object that text holds, as JSON or as a Python literal; return other values unchanged."""
    if not isinstance(value, str) or len(value) > LARGEST_STRUCTURE:
        return value
    text = value.strip()
    if not (text.startswith(("[", "{")) and text.endswith(("]", "}"))):
        return value
    for read in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            decoded = read(text)
            return decoded if isinstance(decoded, list | dict) and (read is json.loads or _has_commas(text)) else value
    return value


def _has_commas(text: str) -> bool:
    """Return whether no two texts of a Python literal stand side by side, as NumPy prints them: Python joins them."""
    tokens = [token.type for token in generate_tokens(StringIO(text).readline) if token.type != NL]
    return not any(pair == (STRING, STRING) for pair in pairwise(tokens))


def type_name(value: Any) -> str:
    """Return the type of a value in words."""
    return {type(None): "missing", bool: "true or false", str: "text", dict: "an object", list: "a list"}.get(
        type(value), "a number" if isinstance(value, int | float) else f"of type {type(value).__name__}"
    )
