"""Find the settings class of each place of a composed tree, where `Config` alone does not determine it.

A method, and every option that a user has added, has its own class, `Config` of its module. A place comes
after those within it, so that a group is bound with what it holds bound already.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from alignlab.config import extensions
from alignlab.config.evaluation import MEASURES, MeasureSettings
from alignlab.config.groups import Groups
from alignlab.config.judge import JUDGES, JudgeSettings
from alignlab.config.method_protocol import load_method
from alignlab.config.reward import REWARDS, RewardSettings
from alignlab.config.settings import Settings
from alignlab.config.suggestions import close_to
from alignlab.config.task import OWN_SETTINGS
from alignlab.errors import Mistake, mistake

Places = Iterator[tuple[str, Any]]


def settings_classes(tree: Mapping[str, Any], groups: Groups) -> dict[str, type[Settings]]:
    """Return the class of each place that has one of its own; a place comes after those within it."""
    classes: dict[str, type[Settings]] = {}
    for place, node in kinds_in(tree.get("reward"), "reward", REWARDS):
        classes[place] = own_class("rewards", node["kind"], RewardSettings)
    for place, node in method_nodes(tree):
        classes[place] = method_class(place, node, tree, groups)
    for name in tree.get("measure") or {}:
        classes[f"measure.{name}"] = MEASURES.get(name) or own_class("measures", name, MeasureSettings)
    if isinstance(preferences := tree.get("preferences"), Mapping):
        from alignlab.config.preferences import Preferences

        for inner, judge in kinds_in(preferences.get("judge"), "preferences.judge", JUDGES):
            classes[inner] = own_class("judges", judge["kind"], JudgeSettings)
        classes["preferences"] = Preferences
    for place, kind in (("task", "tasks"), ("hardware", "hardware")):
        if settings_class := class_of_option(tree.get(place), kind):
            classes[place] = settings_class
    return classes


def method_nodes(tree: Mapping[str, Any]) -> Places:
    """Yield the places of a tree that hold a method's settings."""
    if isinstance(tree.get("method"), Mapping):
        yield "method", tree["method"]
    for name, node in (tree.get("stages") or {}).items():
        yield f"stages.{name}", node


def method_names(tree: Mapping[str, Any], classes: Mapping[str, type[Settings]]) -> dict[str, list[str]]:
    """Return the names of the method at each place and of those whose settings it extends: `cai`, `dpo`, `method`."""
    places = [place for place, _ in method_nodes(tree)]
    return {place: [owner.__module__.rpartition(".")[2] for owner in classes[place].__mro__] for place in places}


def method_class(place: str, node: Any, tree: Mapping[str, Any], groups: Groups) -> type[Settings]:
    """Return the `Config` of the method that a node names."""
    name = node.get("name") if isinstance(node, Mapping) else None
    if name is None and place != "method":
        raise no_such_stage(place, node, tree)
    known = groups.options["method"]
    if name not in known and not extensions.module_name("methods", str(name)):
        hint = close_to(str(name), known) or f"there is {', '.join(known)}"
        raise mistake("method.name", f"{name!r} is no method", hint)
    return load_method(str(name)).config


def no_such_stage(place: str, node: Any, tree: Mapping[str, Any]) -> Mistake:
    """Build the `Mistake` for settings of a stage that the method does not have; its own are those of `method`."""
    main, stage = tree["method"].get("name"), place.removeprefix("stages.")
    setting = next(iter(node), "…") if isinstance(node, Mapping) else "…"
    stages = [name for name, other in tree["stages"].items() if isinstance(other, Mapping) and "name" in other]
    now = f"it has {', '.join(stages)}" if stages else "it has no other stages"
    if stage == main:
        now = f"its own settings are those of method: write method.{setting}=…"
    return mistake(place, f"method={main} has no stage {stage}", now)


def kinds_in(node: Any, place: str, built_in: Mapping[str, Any]) -> Places:
    """Yield the places at or below a node whose `kind` a user has added."""
    if not isinstance(node, Mapping):
        return
    kind = node.get("kind")
    if isinstance(kind, str) and kind not in built_in:
        group = "rewards" if built_in is REWARDS else "judges"
        if extensions.module_name(group, kind):
            yield place, node
    for name, inner in node.items():
        yield from kinds_in(inner, f"{place}.{name}", built_in)


def own_class(kind: str, name: str, base: type[Settings]) -> type[Settings]:
    """Return the `Config` of an option's module, or the base class where it declares none."""
    module = extensions.load(kind, name)
    config: type[Settings] = getattr(module, "Config", base)
    if not issubclass(config, base):
        now = f"derive it from {base.__module__}.{base.__name__}"
        raise mistake(extensions.KINDS[kind].group, f"{module.__name__}: Config is no {base.__name__}", now)
    return config


def class_of_option(node: Any, kind: str) -> type[Settings] | None:
    """Return the class of a task's or a kind of hardware's own settings; None where the shared class is enough."""
    key = "name" if kind == "tasks" else "strategy"
    name = node.get(key) if isinstance(node, Mapping) else None
    if kind == "tasks" and name in OWN_SETTINGS:
        return OWN_SETTINGS[name]
    if (
        not isinstance(name, str)
        or not (module := extensions.module_name(kind, name))
        or module.startswith("alignlab.")
    ):
        return None
    return getattr(extensions.load(kind, name), "Config", None)
