"""List the settings of `conf/`: key, type, default and comment of each, for the documentation and for help.

Values and comments come from the YAML files, types from the settings classes. A file is read together with those that
it builds on, as Hydra does, since a union of classes is told apart by a value (`kind`) that another file may hold.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config.by_model import AUTO, TABLE
from alignlab.config.groups import conf_folder
from alignlab.config.setting_types import describe_type, field_at, fields_of
from alignlab.config.yaml_comments import (
    Entry,
    description,
    notes,
    read_defaults,
    read_keys,
    read_package,
    read_tree,
)

ROOT = "config"  # conf/config.yaml, as the one option of the group ""
SWEPT = ("hydra", "sweeper", "params")  # where a file lists the values of settings that a sweep tries
FIXED = dict.fromkeys(("kind", "name", "strategy"), "The option that is chosen.") | {"mode": "MULTIRUN: a sweep."}


class Setting(NamedTuple):
    """One setting, as one file of `conf/` sets it."""

    key: str  # as a command writes it: method.beta
    type: str
    default: str  # as YAML writes it; empty for a group of settings
    comment: str
    file: str  # the file that sets it, relative to conf/


class Part(NamedTuple):
    """One YAML file and the place in the config where its keys lie."""

    file: Path
    package: tuple[str, ...]


def settings_of(group: str, option: str) -> list[Setting]:
    """Return all settings of an option, those of the files that it builds on included, each with its last value."""
    settings: dict[str, Setting] = {}
    for part in own_parts(group, option):
        for setting in settings_in(part, group, option):
            before = settings.get(setting.key)
            comment = setting.comment or (before.comment if before else "")
            settings[setting.key] = setting._replace(comment=comment)
    return list(settings.values())


def settings_in_file(group: str, option: str) -> list[Setting]:
    """Return the settings that one file writes itself; `_training` and other shared files are files, too."""
    _, user = (group, option) if not option.startswith("_") else first_user(group, option)
    file = option_file(group, option)
    return list(settings_in(next(part for part in parts_of(group, user) if part.file == file), group, user))


def unset_settings(group: str, option: str) -> list[Setting]:
    """Return the settings inside an option's groups that their types allow and no file sets; all are null.

    They are the keys that a library takes and conf/ does not list, such as DeepSpeed's.
    """
    tree = composed(group, option)
    parts = own_parts(group, option)
    places = {(*part.package, *key.path) for part in parts for key in read_keys(part.file)}
    settings = []
    for place in sorted(places):
        node, annotation = value_at(tree, place), field_at(tree, place).annotation
        for name, field in fields_of(annotation, node) if isinstance(node, Mapping) else ():
            words = describe_type(field)
            if name not in node and "group" not in words:
                settings.append(Setting(".".join((*place, name)), words, "null", "", ""))
    return settings


def value_at(tree: Any, path: tuple[str, ...]) -> Any:
    """Return the value at a path of keys and places in lists."""
    for name in path:
        tree = tree[int(name)] if isinstance(tree, list) else tree[name]
    return tree


def groups() -> list[str]:
    """Return the groups of conf/; "" is conf/config.yaml itself."""
    folders = (folder for folder in conf_folder().rglob("*") if folder.is_dir())
    return ["", *sorted(str(folder.relative_to(conf_folder())) for folder in folders)]


def files_of(group: str) -> list[str]:
    """Return the files of a group by name, the options first, then those that options share."""
    names = [file.stem for file in (conf_folder() / group).glob("*.yaml") if file.name != TABLE]
    return sorted(names, key=lambda name: (name.startswith("_"), name))


def option_file(group: str, option: str) -> Path:
    """Return the YAML file of an option."""
    return conf_folder() / group / f"{option}.yaml"


def describe_option(group: str, option: str) -> str:
    """Return the line that says what an option is: the first comment of its file."""
    return description(option_file(group, option))


def notes_of(group: str, option: str) -> str:
    """Return what an option's file says of itself after its description, such as where its values come from."""
    return notes(option_file(group, option))


def chooses(group: str, option: str) -> list[str]:
    """Return the options of other groups that an option's file chooses: `method=dpo`."""
    entries = read_defaults(option_file(group, option))
    return [f"{entry.group}={entry.option}" for entry in entries if entry.is_override]


def builds_on(group: str, option: str) -> list[str]:
    """Return the files that an option's file names in its own `defaults`, relative to conf/."""
    file = option_file(group, option)
    return [str(part.file.relative_to(conf_folder())) for part in direct_parts(Part(file, ())) if part.file != file]


@cache
def first_user(group: str, shared: str) -> tuple[str, str]:
    """Return the first option that builds on a shared file."""
    file = option_file(group, shared)
    for option in files_of(group):
        if not option.startswith("_") and any(part.file == file for part in parts_of(group, option)):
            return group, option
    raise LookupError(f"no option of {group} builds on {shared}")


def settings_in(part: Part, group: str, option: str) -> Iterator[Setting]:
    """Yield the settings of one file of an option; of groups only those with a comment.

    A setting without a comment gets that of the file that it overrides, else that of another file for the same field.
    """
    tree, comments = composed(group, option), comments_of(group, option)
    for key in read_keys(part.file):
        path = (*part.package, *key.path)
        field = field_at(tree, path)
        comment = key.comment or inherited_comment(path, field.owner, comments)
        if comment or not key.is_group:
            words = "group" if key.is_group else describe_type(field.annotation)
            words = f"auto | {words}" if key.default == AUTO and AUTO not in words and "text" not in words else words
            file = str(part.file.relative_to(conf_folder()))
            yield Setting(".".join(path), words, key.default, comment, file)


def inherited_comment(path: tuple[str, ...], owner: type | None, comments: Mapping[tuple[str, ...], str]) -> str:
    """Return the comment of a setting that has none in its own file."""
    if path[:3] == SWEPT and path[3:]:
        return comments.get(tuple(".".join(path[3:]).split("."))) or "Values that the sweep tries."
    if path[-1] == "kind":
        return FIXED["kind"]
    named = comments_by_field().get((owner, path[-1]), "") if owner else comments.get(path[:-1], "")
    return comments.get(path) or named or FIXED.get(path[-1], "")


@cache
def comments_of(group: str, option: str) -> dict[tuple[str, ...], str]:
    """Return the comments that explain the settings of a config with this option, by path."""
    parts = composed_parts(group, option)
    keys = ((part, key) for part in parts for key in read_keys(part.file) if key.comment)
    return {(*part.package, *key.path): key.comment for part, key in keys}


@cache
def comments_by_field() -> dict[tuple[type | None, str], str]:
    """Return the first comment of each field of a settings class, by class and name."""
    comments: dict[tuple[type | None, str], str] = {}
    for group in groups():
        for option in (name for name in files_of(group) if not name.startswith("_")):
            for part in parts_of(group, option):
                for key in read_keys(part.file):
                    owner = field_at(composed(group, option), (*part.package, *key.path)).owner if key.comment else None
                    if owner:
                        comments.setdefault((owner, key.path[-1]), key.comment)
    return comments


def own_parts(group: str, option: str) -> list[Part]:
    """Return the files of an option that lie in its own place, without the stages that a method brings along."""
    package = read_package(option_file(group, option), group)
    parts = parts_of(group, option)
    return [part for part in parts if part.package[: len(package)] == package and (package or part.package == ())]


@cache
def parts_of(group: str, option: str) -> list[Part]:
    """Return the files that an option is made of, in the order in which Hydra merges them."""
    file = option_file(group, option)
    return list(parts_below(Part(file, read_package(file, group))))


def parts_below(part: Part) -> Iterator[Part]:
    """Yield the files that one file is made of, itself included, in the order in which Hydra merges them."""
    for inner in direct_parts(part):
        yield from [inner] if inner.file == part.file else parts_below(inner)


def direct_parts(part: Part) -> Iterator[Part]:
    """Yield the files that a file's `defaults` name, and the file itself in the place of `_self_`."""
    entries = [entry for entry in read_defaults(part.file) if not entry.is_override]
    if not any(entry.option == "_self_" for entry in entries):
        yield part
    for entry in entries:
        if entry.option == "_self_":
            yield part
        elif entry.option:
            group = entry.group or str(part.file.parent.relative_to(conf_folder()))
            file = option_file(group, entry.option)
            own = part.package if not entry.group else read_package(file, group)
            package = own if entry.package is None else entry.package.place(part.package)
            yield Part(file, package)


def composed_parts(group: str, option: str) -> Iterator[Part]:
    """Yield all files of the config that a command with this one option composes."""
    choices = default_options()
    if group:
        choices |= {group: [option]}
        for part in parts_of(group, option):
            choices |= options_by_group(read_defaults(part.file), overrides=True)
    for chosen, names in choices.items():
        for name in names:
            if option_file(chosen, name).exists():
                yield from parts_of(chosen, name)
    yield Part(option_file("", ROOT), ())
    if group and () in {part.package for part in parts_of(group, option)}:
        yield from parts_of(group, option)


def default_options() -> dict[str, list[str]]:
    """Return the options of each group that conf/config.yaml chooses."""
    return options_by_group(read_defaults(option_file("", ROOT)), overrides=False)


def options_by_group(entries: list[Entry], overrides: bool) -> dict[str, list[str]]:
    """Return the options that entries choose of each group: those that override a choice, or the others."""
    chosen: dict[str, list[str]] = {}
    for entry in entries:
        if entry.group and entry.is_override == overrides:
            chosen.setdefault(entry.group, []).extend([entry.option] if entry.option else [])
    return chosen


@cache
def composed(group: str, option: str) -> dict[str, Any]:
    """Return the config that a command with this one option composes, with interpolations as they are written."""
    tree: dict[str, Any] = {}
    for part in composed_parts(group, option):
        values: Mapping[str, Any] = {key: value for key, value in read_tree(part.file).items() if key != "defaults"}
        for name in reversed(part.package):
            values = {name: values}
        merge(tree, values)
    return tree


def merge(tree: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Put values into a tree, group by group; the values stay as they are."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            if not isinstance(tree.get(key), dict):
                tree[key] = {}
            merge(tree[key], value)
        else:
            tree[key] = value
