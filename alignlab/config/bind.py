"""Turn a composed tree into one frozen, typed `Config`, or say everything that is wrong with it.

A method's shape is handed to `bind` with the place at which the tree holds its settings, so that this module imports
no method. pydantic finds the faults; here they are told in the user's words: place, value, rule, suggestion.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from alignlab.config.dataset import dialogue_world, pocket_world
from alignlab.config.method import Method
from alignlab.config.model import PocketModel, PocketT5Model
from alignlab.config.reward import singles
from alignlab.config.schema import Config
from alignlab.config.settings import Settings
from alignlab.config.suggestions import close_to, suggestion
from alignlab.errors import Fault, Mistake


def bind(tree: Mapping[str, Any], methods: Mapping[str, type[Settings]]) -> Config:
    """Turn a composed, resolved tree into a `Config`, or raise one `Mistake` that holds every fault.

    `methods` gives the shape of each method in the tree by its place: `{"method": …, "stages.sft": …}`; and of other
    groups whose shape is not in `alignlab.config.schema`.
    """
    filled = dict(tree)
    faults = list(_missing(tree, ()))
    absent = {fault.where for fault in faults}
    for place, shape in methods.items():
        bound, found = _validate(shape, _at(tree, place), place, tree)
        faults += found
        _put(filled, place, bound or Method(name="faulty"))
    config, found = _validate(Config, filled, "", tree)
    faults += found
    if isinstance(config, Config):
        faults += _shape_faults(config, "")
        if not found:
            faults += _contradictions(config)
    unique: dict[tuple[str, str], Fault] = {}
    for fault in (as_typed(one) for one in faults if one.what == MISSING or one.where not in absent):
        unique.setdefault((fault.where, fault.what), fault)
    if unique or not isinstance(config, Config):
        raise Mistake(list(unique.values()))
    return config


def as_typed(fault: Fault) -> Fault:
    """Name settings of a group that stands in several places by where a user sets them: `judge.url`."""
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


def _validate(
    shape: type[Settings], value: Any, place: str, tree: Mapping[str, Any]
) -> tuple[Settings | None, list[Fault]]:
    try:
        return shape.model_validate(value), []
    except ValidationError as error:
        return None, [_explain(shape, fault, place, tree) for fault in error.errors(include_url=False)]


def _explain(root: type[Settings], error: ErrorDetails, place: str, tree: Mapping[str, Any]) -> Fault:
    """Rephrase one of pydantic's findings: place, value, rule, suggestion."""
    keys, shape, annotation = _walk(root, error["loc"])
    where = ".".join(filter(None, [place, *keys]))
    given, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return Fault(where, "unknown key", suggestion(keys[-1], _known(shape), tree, where))
        case "missing":
            return Fault(where, MISSING, f"add {where}=…")
        case "literal_error":
            return Fault(where, f"{given!r} is none of {context['expected']}", close_to(str(given), _options(context)))
        case "union_tag_invalid":
            tags = [tag.strip().strip("'") for tag in context["expected_tags"].split(",")]
            return Fault(
                f"{where}.kind", f"{context['tag']!r} is none of {', '.join(tags)}", close_to(context["tag"], tags)
            )
        case "union_tag_not_found":
            return Fault(f"{where}.kind", MISSING, f"choose an option of the group: {where}=…")
        case kind if kind in RULES:
            return Fault(where, f"{given!r} is not {RULES[kind]}", _example(annotation, where))
        case _:
            return Fault(where, f"{given!r}: {error['msg'][0].lower()}{error['msg'][1:]}")


RULES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a group of settings",
    "model_type": "a group of settings",
    "model_attributes_type": "a group of settings",
    "path_type": "a path",
    "finite_number": "a finite number",
}


def _example(annotation: Any, where: str) -> str:
    text = str(annotation)
    if "tuple" in text:
        return f"write {where}=[…]"
    return ""


def _options(context: Mapping[str, Any]) -> list[str]:
    return [part.strip().strip("'") for part in str(context["expected"]).replace(" or ", ",").split(",")]


def _walk(root: type[Settings], location: tuple[int | str, ...]) -> tuple[list[str], type[Settings] | None, Any]:
    """Follow pydantic's location through the shapes; drop the union tags that no user has typed."""
    keys: list[str] = []
    shape: type[Settings] | None = root
    choices: tuple[type[Settings], ...] = ()
    annotation: Any = None
    for part in location:
        tagged = [c for c in choices if part in get_args(c.model_fields["kind"].annotation)] if len(choices) > 1 else []
        if tagged:
            shape, choices = tagged[0], ()
            continue
        if any(getattr(c, "__name__", None) == part for c in choices) or str(part).startswith(
            ("function-", "constrained", "literal[")
        ):
            continue
        if part in _TYPE_TAGS and not (shape and part in shape.model_fields):
            continue
        keys.append(str(part))
        field = shape.model_fields.get(str(part)) if shape else None
        annotation = field.annotation if field else None
        if field:  # else the name of an entry: what it may be was said by the field that holds it
            choices = tuple(_shapes_in(annotation))
            shape = choices[0] if len(choices) == 1 else None
    return keys, shape, annotation


_TYPE_TAGS = {"int", "float", "str", "bool", "tuple[str, ...]", "none", "path"}


def _shapes_in(annotation: Any) -> Iterator[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _shapes_in(inner)


def _known(shape: type[Settings] | None) -> list[str]:
    return list(shape.model_fields) if shape else []


def _shape_faults(shape: Settings, place: str) -> Iterator[Fault]:
    for fault in shape.faults():
        yield fault._replace(where=f"{place}{fault.where}")
    for name, value in shape:
        if isinstance(value, Settings):
            yield from _shape_faults(value, f"{place}{name}.")
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, Settings):
                    yield from _shape_faults(inner, f"{place}{name}.{key}.")


def _contradictions(config: Config) -> Iterator[Fault]:
    """Groups that do not go together, and paths that are not there."""
    model, data = config.model, config.dataset
    world = pocket_world(data)
    if isinstance(model, PocketModel) and world is None and config.task.name != "prepare":
        yield Fault(
            "model", f"pocket knows only the words of the pocket world, and dataset is {data.kind}", "add model=scratch"
        )
    if isinstance(model, PocketModel) and world and model.size != world.size:
        yield Fault(
            "model.size", f"{model.size!r} does not fit dataset.size ({world.size!r})", f"add model.size={world.size}"
        )
    if isinstance(model, PocketT5Model) and dialogue_world(data) is None and config.task.name != "prepare":
        yield Fault("model", "pocket_t5 knows only the words of pocket's dialogues", "add dataset=pocket_dialogues")
    judge = config.evaluation.toxicity_model
    if judge and judge in {getattr(one, "path", None) for _, one in singles(config.reward)}:
        yield Fault("evaluation.toxicity_model", f"{judge} is the reward as well", "measure with another classifier")
    if config.evaluation.reward_model == "auto" and ("rm" not in config.stages or config.task.name != "train"):
        said = "auto trains a reward model, which needs the settings of its stage"
        yield Fault("evaluation.reward_model", said, "use method=ppo or sweep=dpo_beta, or give a folder or a hub id")
    if getattr(config.method, "value", None) == "adapter":
        if model.adapter is None:
            yield Fault("method.value", "adapter needs a policy with low-rank adapters", "add model/adapter=lora")
        if config.hardware.strategy not in {"single", "ddp"}:
            said = f"adapter does not go with hardware={config.hardware.strategy}, which hides what it does not see"
            yield Fault("method.value", said, "use value=shared or separate")
    if world is None:
        if "gold" in (config.evaluation.measures or ()):
            yield Fault("evaluation.measures", "gold knows only the pocket world", "leave it out")
        for name in ("train", "test", "path", "test_path"):
            paths = getattr(data, name, None)
            for path in paths if isinstance(paths, tuple) and dialogue_world(data) is None else ():
                if not path.exists():
                    yield Fault(f"dataset.{name}", f"{path} is not there", "give a file or a folder")
