"""Write the reference of settings: a page for each group of `conf/`, with a table for each of its files."""

from collections.abc import Iterator
from pathlib import Path

from alignlab.config.reference import (
    ROOT,
    Setting,
    builds_on,
    chooses,
    default_options,
    describe_option,
    files_of,
    groups,
    notes_of,
    settings_in_file,
    unset_settings,
)


def write_pages(folder: Path) -> None:
    """Write all pages into a folder; pages that stay the same are left alone."""
    folder.mkdir(exist_ok=True)
    pages = {f"{name_of(group)}.md": "\n".join(page(group)) + "\n" for group in groups()}
    for file in folder.glob("*.md"):
        if file.name not in pages:
            file.unlink()
    for name, text in pages.items():
        file = folder / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")


def name_of(group: str) -> str:
    """Return the name of a group's page."""
    return group.replace("/", "-") or "top"


def page(group: str) -> Iterator[str]:
    """Yield the lines of a group's page."""
    if group:
        yield f"# {group}"
        chosen = default_options().get(group, [])
        names = f"[{', '.join(chosen)}]" if len(chosen) > 1 else "".join(chosen)
        default = f"The default is `{group}={names}`." if names else "By default none is chosen."
        yield f"\n`{group}=` chooses one of these files of `conf/{group}/`. {default}"
    else:
        yield "# Top level"
        yield "\nWhat `conf/config.yaml` sets besides the groups: the seed, sweeps, and the folders of runs."
    for name in files_of(group):
        yield from section(group, name)


def section(group: str, name: str) -> Iterator[str]:
    """Yield the heading, the description and the table of one file."""
    is_shared = name.startswith("_")
    yield f"\n({anchor(group, name)})="
    if group:
        yield f"## {f'Shared: {name}' if is_shared else f'{group}={name}'}"
        yield f"\n{escaped(describe_option(group, name))}"
        yield f"\n{escaped(notes_of(group, name))}"
    if above := builds_on(group, name) if name != ROOT else []:
        links = (
            f"[{file.removesuffix('.yaml')}](#{anchor(*file.removesuffix('.yaml').rsplit('/', 1))})" for file in above
        )
        yield f"\nBuilds on {', '.join(links)}."
    if others := chooses(group, name) if name != ROOT else []:
        yield f"\nChooses {', '.join(f'`{other}`' for other in others)}."
    if settings := settings_in_file(group, name):
        yield "\n{.settings}\n| setting | type | default | what it does |\n|---|---|---|---|"
        yield from map(row, settings)
    if more := [] if is_shared else unset_settings(group, name):
        yield f"\n<details><summary>{len(more)} more settings, null until you set them</summary>\n"
        yield "| setting | type |\n|---|---|"
        yield from (f"| `{setting.key}` | {escaped(setting.type)} |" for setting in more)
        yield "\n</details>"


def anchor(group: str, name: str) -> str:
    """Return the target of a file's section."""
    return f"{name_of(group)}-{name}"


def row(setting: Setting) -> str:
    """Return a setting as one row of a table."""
    default = f"`{escaped(setting.default)}`" if setting.default else ""
    key = f"`{setting.key}`" if setting.default else f"**`{setting.key}`**"
    return f"| {key} | {escaped(setting.type)} | {default} | {escaped(setting.comment)} |"


def escaped(text: str) -> str:
    """Return text that Markdown takes as it is, in a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
