"""The text of `--help` behind a choice, such as `method=dpo --help`: the option's settings, from the YAML comments."""

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from alignlab.config import reference
from alignlab.config.groups import Groups, first_comment
from alignlab.config.reference import Setting
from alignlab.config.suggestions import close_to
from alignlab.config.yaml_comments import read_keys, read_package
from alignlab.errors import mistake

INDENT = " " * 4
WIDEST = 100  # characters of a line


def help_lines(overrides: Sequence[str], groups: Groups) -> list[str]:
    """Return the help on every option that a command chooses; empty where it chooses none."""
    chosen = [(key, values) for key, _, values in (text.partition("=") for text in overrides) if key in groups.options]
    return [
        line
        for group, values in chosen
        for option in values.strip("[]").split(",")
        for line in option_lines(group, option.strip(), groups)
    ]


def option_lines(group: str, option: str, groups: Groups) -> Iterator[str]:
    """Yield the help on one option: what it is, and its settings with default, type and comment."""
    file = groups.file(group, option)
    if file is None:
        raise mistake(group, f"no option {option!r}", close_to(option, groups.options[group]))
    yield f"{group}={option}: {first_comment(file)}"
    is_built_in = file == reference.option_file(group, option)
    if is_built_in and (notes := reference.notes_of(group, option)):
        yield from wrapped(notes, INDENT)
    settings = reference.settings_of(group, option) if is_built_in else own_settings(file, group)
    for setting in sorted(settings, key=lambda setting: not str(file).endswith(setting.file)):  # its own file's first
        yield from setting_lines(setting)
    yield ""


def own_settings(file: Path, group: str) -> list[Setting]:
    """Return the settings of an option of the user's own, as its file writes them; their types are not known here."""
    place = read_package(file, group)
    return [
        Setting(".".join((*place, *key.path)), "group" if key.is_group else "", key.default, key.comment, str(file))
        for key in read_keys(file)
    ]


def setting_lines(setting: Setting) -> Iterator[str]:
    """Yield one setting: its default and type, and its comment below."""
    value = f"={setting.default}" if setting.default else ""
    words = f"   ({setting.type})" if setting.type else ""
    yield f"\n  {setting.key}{value}{words}"
    yield from wrapped(setting.comment, INDENT)


def wrapped(text: str, indent: str) -> list[str]:
    """Return a text on lines as wide as the terminal."""
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
    return textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)
