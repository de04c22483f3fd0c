"""Describe the type of a setting in words: `int ≥ 1`, `linear | cosine`, `list of text | null`."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator
from pydantic.fields import FieldInfo

from alignlab.config.constitution import Constitution
from alignlab.config.evaluation import MEASURES
from alignlab.config.hardware import Auto
from alignlab.config.judge import AnyJudge
from alignlab.config.method import Method
from alignlab.config.method_protocol import load_method
from alignlab.config.preferences import Preferences
from alignlab.config.schema import Config
from alignlab.config.settings import OptionName, Settings
from alignlab.config.task import OWN_SETTINGS, Task

NAMES = {bool: "bool", int: "int", float: "float", str: "text", Path: "path", NoneType: "null", Any: "any"}
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
BESIDE = {"constitution": Constitution, "judge": AnyJudge, "preferences": Preferences}  # not in `Config` by type
HYDRA, SWEPT = "Hydra's own", "values to try"


class Field(NamedTuple):
    """What the types say of a setting; `owner` is the class that declares it, None for an entry of a list or group."""

    annotation: Any
    owner: type | None = None


def field_at(tree: Mapping[str, Any], path: Sequence[str]) -> Field:
    """Return the field of the setting at `path`; values in the tree (`kind`, `name`) tell the classes apart."""
    if path[0] == "hydra":
        return Field(SWEPT if list(path[:3]) == ["hydra", "sweeper", "params"] and len(path) > 3 else HYDRA)
    field = Field(BESIDE[path[0]]) if path[0] in BESIDE else Field(hints(Config)[path[0]], Config)
    node: Any = tree[path[0]]
    for depth, name in enumerate(path[1:]):
        is_measure = path[0] == "measure" and depth == 0
        field = Field(MEASURES[name]) if is_measure else inner_field(field.annotation, node, name)
        node = node[int(name)] if isinstance(node, list) else node[name]
    return field


def inner_field(annotation: Any, node: Any, name: str) -> Field:
    """Return the field of an entry of a list, of a group by name, or of a settings class."""
    kind = next((inner for inner in alternatives(annotation) if get_origin(inner) in {tuple, dict}), None)
    if kind is None:
        settings = choose(list(classes(annotation)), node)
        owner = next(one for one in reversed(settings.__mro__) if name in getattr(one, "__annotations__", {}))
        return Field(hints(settings)[name], owner)
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return Field(arguments[1])
    return Field(arguments[0] if arguments[-1] is Ellipsis else arguments[int(name)])


def choose(candidates: list[type[Settings]], node: Any) -> type[Settings]:
    """Return the class whose `kind` a node names; a method's class is in its own file, a task's may be its own."""
    if Method in candidates:
        return method_class(node["name"])
    if Task in candidates:
        return OWN_SETTINGS.get(node["name"], Task)
    named = [one for one in candidates if node.get("kind") in get_args(hints(one).get("kind"))]
    return named[0] if len(candidates) > 1 else candidates[0]


def fields_of(annotation: Any, node: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the names and annotations of all that a group of settings may hold."""
    candidates = [] if isinstance(annotation, str) else list(classes(annotation))
    return list(hints(choose(candidates, node)).items()) if candidates else []


@cache
def method_class(name: str) -> type[Method]:
    """Return the settings class of a method."""
    return load_method(name).config  # type: ignore[return-value]


@cache
def hints(settings: type) -> dict[str, Any]:
    """Return the annotations of a class and of those that it extends."""
    return get_type_hints(settings, include_extras=True)


def classes(annotation: Any) -> Iterator[type[Settings]]:
    """Yield the settings classes that an annotation allows."""
    yield from (one for one in alternatives(annotation) if isinstance(one, type) and issubclass(one, Settings))


def alternatives(annotation: Any) -> Iterator[Any]:
    """Yield the members of a union, without what annotates them."""
    if get_origin(annotation) is Annotated:
        yield from alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in {Union, UnionType}:
        for inner in get_args(annotation):
            yield from alternatives(inner)
    else:
        yield annotation


def describe_type(annotation: Any) -> str:
    """Return an annotation in words; `|` stands between the members of a union."""
    if isinstance(annotation, str):
        return annotation
    words: list[str] = []
    for word in words_of(annotation):
        if word not in words:
            words.append(word)
    return " | ".join(sorted(words, key=lambda word: word == "null"))


def words_of(annotation: Any) -> Iterator[str]:
    """Yield the words for each member of an annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from annotated_words(arguments[0], arguments[1:])
    elif origin in {Union, UnionType}:
        for inner in arguments:
            yield from words_of(inner)
    elif origin is Literal:
        yield from map(str, arguments)
    elif origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        yield f"list of {count}{bracketed(describe_type(arguments[0]))}"
    elif origin is dict:
        yield f"group of {bracketed(describe_type(arguments[1]))} by name"
    elif isinstance(annotation, type) and issubclass(annotation, Settings):
        yield "group"
    else:
        yield NAMES.get(annotation, str(annotation))


def annotated_words(inner: Any, notes: Sequence[Any]) -> Iterator[str]:
    """Yield the words for a type with bounds: `float > 0`; `auto` stands for null where it may be written."""
    names = next((note.built_in for note in notes if isinstance(note, OptionName)), None)
    words = list(names or words_of(inner))
    if Auto in notes:
        words = ["auto", *(word for word in words if word != "null")]
    elif any(isinstance(note, BeforeValidator) for note in notes):
        words = [words[0].removeprefix("list of "), *words]
    bounds = [bound for note in notes if isinstance(note, FieldInfo) for bound in bounds_of(note)]
    yield from [f"{words[0]} {' '.join(bounds)}", *words[1:]] if bounds else words


def bounds_of(field: FieldInfo) -> Iterator[str]:
    """Yield the bounds of a number: `≥ 1`, or `from 0 to 1`."""
    bounds = {name: getattr(note, name) for note in field.metadata for name in SIGNS if hasattr(note, name)}
    if bounds.keys() == {"ge", "le"}:
        yield f"from {bounds['ge']} to {bounds['le']}"
    else:
        yield from (f"{SIGNS[name]} {'2^32' if bound == 2**32 else bound}" for name, bound in bounds.items())


def bracketed(words: str) -> str:
    """Put a type of several words in brackets."""
    return f"({words})" if " " in words else words
