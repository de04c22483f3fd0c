"""Turn a composed tree into one frozen, typed `Config`, or raise one error with all faults.

Methods and the options that a user adds have settings classes of their own. `bind` receives them with the place of
their settings in the tree. pydantic finds the faults; this file rephrases each one as place, value, rule and
suggestion.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from alignlab.config import strategies
from alignlab.config.contradictions import contradictions
from alignlab.config.evaluation import MeasureSettings
from alignlab.config.groups import Groups
from alignlab.config.hardware import Hardware
from alignlab.config.judge import JudgeSettings
from alignlab.config.method import Method
from alignlab.config.reward import RewardSettings
from alignlab.config.schema import Config
from alignlab.config.settings import EXTENSION, RULES, Settings
from alignlab.config.suggestions import close_to, suggestion
from alignlab.config.task import Task
from alignlab.errors import Fault, Mistake


def bind(tree: Mapping[str, Any], classes: Mapping[str, type[Settings]], groups: Groups) -> Config:
    """Turn a composed, resolved tree into a `Config`, or raise one `Mistake` that holds every fault.

    `classes` gives the settings class of each place that has one of its own, a place after those within it:
    `{"preferences.judge": …, "preferences": …}`.
    """
    filled = dict(tree)
    faults = list(_missing(tree, ()))
    absent = {fault.where for fault in faults}
    context = Context(tree, groups)
    for place, settings_class in classes.items():
        settings, errors = _validate(settings_class, _at(filled, place), place, context)
        faults += errors
        _put(filled, place, settings or placeholder(place))
    config, errors = _validate(Config, filled, "", context)
    faults += errors
    if isinstance(config, Config):
        faults += _contradictions_within(config, "")
        if not errors:
            faults += contradictions(config)
    unique: dict[tuple[str, str], Fault] = {}
    for fault in faults:
        if fault.what == MISSING or fault.where not in absent:
            fault = as_typed(fault)
            unique.setdefault((fault.where, fault.what), fault)
    if unique or not isinstance(config, Config):
        raise Mistake(list(unique.values()))
    return config


def placeholder(place: str) -> Settings:
    """Return valid settings to put in the place of faulty ones, so that only the faulty ones are reported."""
    if place.endswith(".judge"):
        return JudgeSettings(kind="faulty")
    if place.startswith("reward"):
        return RewardSettings(kind="faulty")
    if place == "hardware":
        return Hardware.model_construct(strategy=strategies.ALONE)
    if place == "task":
        return Task(name="train")
    return MeasureSettings() if place.startswith("measure.") else Method(name="faulty")


def as_typed(fault: Fault) -> Fault:
    """Shorten the place of a shared group to the one that the user sets: `method.judge.url` to `judge.url`."""
    return fault._replace(where=SHARED.sub(r"\1", fault.where), now=SHARED.sub(r"\1", fault.now))


MISSING = "no value was given"
SHARED = re.compile(r"(?:\w+\.)+(judge|constitution)(?![\w/])")


def _missing(value: Any, place: tuple[str, ...]) -> Iterator[Fault]:
    if value == "???":
        name = ".".join(place)
        yield Fault(name, MISSING, f"add {name}=…")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _missing(inner, (*place, str(key)))


def _at(tree: Any, place: str) -> Any:
    for key in place.split("."):
        tree = tree[key]
    return tree


def _put(tree: dict[str, Any], place: str, value: Any) -> None:
    head, _, rest = place.partition(".")
    if rest:
        tree[head] = dict(tree[head])
        _put(tree[head], rest, value)
    else:
        tree[head] = value


class Context(NamedTuple):
    """The whole tree, and the groups that a command may choose from; suggestions are made from them."""

    tree: Mapping[str, Any]
    groups: Groups


def _validate(root: type[Settings], value: Any, place: str, context: Context) -> tuple[Settings | None, list[Fault]]:
    try:
        return root.model_validate(value), []
    except ValidationError as error:
        return None, [_explain(root, fault, place, context) for fault in error.errors(include_url=False)]


def _explain(root: type[Settings], error: ErrorDetails, place: str, context: Context) -> Fault:
    """Rephrase an error of pydantic as place, value, rule and suggestion."""
    keys, settings_class, annotation = _walk(root, error["loc"])
    where = ".".join(filter(None, [place, *keys]))
    value, details = error["input"], error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return Fault(
                where,
                "unknown key",
                suggestion(keys[-1], _known(settings_class), context.tree, where, context.groups),
            )
        case "missing":
            return Fault(where, MISSING, f"add {where}=…")
        case "literal_error":
            return Fault(where, f"{value!r} is none of {details['expected']}", close_to(str(value), _options(details)))
        case "union_tag_invalid":
            return _unknown_kind(where, str(details["tag"]), str(details["expected_tags"]))
        case "union_tag_not_found":
            return Fault(f"{where}.kind", MISSING, f"choose an option of the group: {where}=…")
        case "too_short":
            least = details["min_length"]
            return Fault(
                where, f"{value!r} is too short", f"write at least {least}: {where}=[{'a,b'[: 2 * least - 1]}]"
            )
        case kind if kind in RULES:
            return Fault(where, f"{value!r} is not {RULES[kind]}", _example(annotation, where))
        case _:
            return Fault(where, f"{value!r}: {error['msg'][0].lower()}{error['msg'][1:]}")


def _unknown_kind(where: str, kind: str, expected: str) -> Fault:
    """Explain a kind that is neither built in nor added by the user."""
    tags = [tag for tag in (part.strip().strip("'") for part in expected.split(",")) if tag != EXTENSION]
    folder = "judges" if where.rpartition(".")[2] == "judge" else "rewards"
    now = close_to(kind, tags) or f"write {folder}/{kind}.py in this folder to add it"
    return Fault(f"{where}.kind", f"{kind!r} is none of {', '.join(tags)}", now)


def _example(annotation: Any, where: str) -> str:
    text = str(annotation)
    if "tuple" in text:
        return f"write {where}=[…]"
    return ""


def _options(details: Mapping[str, Any]) -> list[str]:
    return [part.strip().strip("'") for part in str(details["expected"]).replace(" or ", ",").split(",")]


def _walk(root: type[Settings], location: tuple[int | str, ...]) -> tuple[list[str], type[Settings] | None, Any]:
    """Follow pydantic's location through the settings classes; leave out union tags, which no user has typed."""
    keys: list[str] = []
    settings_class: type[Settings] | None = root
    choices: tuple[type[Settings], ...] = ()
    annotation: Any = None
    for part in location:
        tagged = [c for c in choices if part in get_args(c.model_fields["kind"].annotation)] if len(choices) > 1 else []
        if tagged:
            settings_class, choices = tagged[0], ()
            continue
        if any(getattr(c, "__name__", None) == part for c in choices) or str(part).startswith(
            ("function-", "constrained", "literal[")
        ):
            continue
        if part in _TYPE_TAGS and not (settings_class and part in settings_class.model_fields):
            continue
        keys.append(str(part))
        field = settings_class.model_fields.get(str(part)) if settings_class else None
        annotation = field.annotation if field else None
        if field:  # else the name of an entry, whose class the field around it has set
            choices = tuple(_classes_in(annotation))
            settings_class = choices[0] if len(choices) == 1 else None
    return keys, settings_class, annotation


_TYPE_TAGS = {"int", "float", "str", "bool", "tuple[str, ...]", "none", "path"}


def _classes_in(annotation: Any) -> Iterator[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _classes_in(inner)


def _known(settings_class: type[Settings] | None) -> list[str]:
    return list(settings_class.model_fields) if settings_class else []


def _contradictions_within(settings: Settings, place: str) -> Iterator[Fault]:
    for fault in settings.faults():
        yield fault._replace(where=f"{place}{fault.where}")
    for name, value in settings:
        if isinstance(value, Settings):
            yield from _contradictions_within(value, f"{place}{name}.")
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, Settings):
                    yield from _contradictions_within(inner, f"{place}{name}.{key}.")
