"""Parse the overrides of a command, and look up the groups and options that they name."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from alignlab.config.groups import Groups
from alignlab.config.suggestions import close_to
from alignlab.errors import Fault

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def parse(overrides: list[str], groups: Groups) -> "tuple[list[Override], list[Fault]]":
    """Parse overrides and look up their groups and options; return the valid ones, and the faults of the others."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    parsed: list[Override] = []
    faults: list[Fault] = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException:
            faults.append(Fault(text, "is not a setting", "write key=value"))
            continue
        unknown = list(group_faults(override, groups))
        faults += unknown
        if not unknown:
            parsed.append(override)
    return parsed + [parser.parse_override(text) for text in measures_of_suite(parsed, groups)], faults


def measures_of_suite(parsed: "list[Override]", groups: Groups) -> Iterator[str]:
    """Yield `measure=[…]` of a typed `evaluation=`, whose list Hydra would replace by that of an experiment."""
    from yaml import safe_load

    typed = {override.key_or_group: override.value() for override in parsed}
    suite = typed.get("evaluation")
    file = groups.file("evaluation", suite) if isinstance(suite, str) else None
    if file and "experiment" in typed and "measure" not in typed:
        for entry in (safe_load(file.read_text(encoding="utf-8")) or {}).get("defaults", ()):
            if isinstance(entry, dict) and "override /measure" in entry:
                yield f"measure=[{','.join(entry['override /measure'])}]"


def sweep_faults(parsed: "list[Override]") -> Iterator[Fault]:
    """Yield a fault for each override that stands for several runs."""
    for override in parsed:
        if override.is_sweep_override():
            key, _, value = str(override.input_line).partition("=")
            now = "add -m for one run per value"
            if "(" not in value:
                now += f", or write one value: '{key}=[{value}]' is a list, '{key}=\"{value}\"' a text with commas"
            yield Fault(override.key_or_group, f"{value} stands for several runs", now)


BY_PATH = {"model": "model=local", "dataset": "dataset=file"}  # options that take a folder or a file


def group_faults(override: "Override", groups: Groups) -> Iterator[Fault]:
    """Yield a fault for an unknown group, and for each unknown option of a known one."""
    name = override.key_or_group
    if name in groups.options:
        options = groups.options[name]
        for option in (option for value in values_of(override) for option in listed(value)):
            if option not in options:
                named = (
                    f"write {BY_PATH[name]} {name}.path={option}" if name in BY_PATH and set(option) & {*"/."} else ""
                )
                hint = named or close_to(option, options) or f"there is {', '.join(options) or 'none yet'}"
                yield Fault(name, f"no option {option!r}", hint)
    elif "/" in name and not name.startswith("hydra/"):
        known = list(groups.options)
        yield Fault(name, "unknown group", close_to(name, known) or f"there is {', '.join(known)}")


def values_of(override: "Override") -> list[str]:
    """Return the values of an override: its value, or each value of a sweep, or the ends of an interval."""
    if override.is_sweep_override() and override.is_discrete_sweep():
        return [str(value) for value in override.sweep_string_iterator()]
    if override.is_interval_sweep():
        ends: Any = override.value()
        whole = "int" in ends.tags
        return [str(int(end) if whole else end) for end in (ends.start, ends.end)]
    return [str(override.get_value_element_as_str())]


def listed(value: str) -> list[str]:
    """Return the options that a value names: `[gold,length]` is two."""
    if not (value.startswith("[") and value.endswith("]")):
        return [value]
    return [option.strip().strip("'\"") for option in value[1:-1].split(",") if option.strip()]


def unchecked(override: "Override", groups: Groups) -> str:
    """Return the override in a form that Hydra does not check; `bind` reports its faults better."""
    name, value = override.key_or_group, values_of(override)[0]
    if override.is_delete():
        return str(override.input_line)
    if name in groups.options or name.startswith("hydra") or override.package:
        return f"{override.get_key_element()}={value}"
    return f"++{name}={value}"
