"""The groups of `conf/` and their options: the built-in ones, and those of a user's own config folders."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

GIVEN_BY_PATH = ("experiment", "constitution")  # groups whose option may be a file anywhere


def conf_folder() -> Path:
    """Return the folder of built-in YAML files: inside the package in a wheel, else beside it."""
    package = Path(__file__).parents[1]
    return package / "conf" if (package / "conf").exists() else package.parent / "conf"


@dataclass(frozen=True)
class Groups:
    """The groups that a command may choose from.

    `folders` hold YAML files, the built-in folder first. `files` are the options that a command has named by their
    path: group → option → file.
    """

    folders: tuple[Path, ...] = field(default_factory=lambda: (conf_folder(),))
    files: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)

    @cached_property
    def options(self) -> dict[str, list[str]]:
        """Return the options of each group, in sorted order; a group may have none."""
        groups: dict[str, set[str]] = {group: set() for group in GIVEN_BY_PATH}
        for folder in self.folders:
            for path in (p for p in folder.rglob("*") if p.is_dir()):
                names = {f.stem for f in path.glob("*.yaml") if not f.name.startswith("_")}
                groups.setdefault(path.relative_to(folder).as_posix(), set()).update(names)
        for group, files in self.files.items():
            groups[group].update(files)
        return {group: sorted(groups[group]) for group in sorted(groups)}

    def file(self, group: str, option: str) -> Path | None:
        """Return the YAML file of an option; Hydra takes the first folder that holds one, and so does this."""
        if file := self.files.get(group, {}).get(option):
            return file
        files = (folder / group / f"{option}.yaml" for folder in self.folders)
        return next((file for file in files if file.exists()), None)

    def options_with(self, group: str) -> dict[str, list[str]]:
        """Return the top-level settings of a group's options, each with the options that have it."""
        holders: dict[str, list[str]] = {}
        for option in self.options.get(group, ()):
            file = self.file(group, option)
            for line in file.read_text(encoding="utf-8").splitlines() if file else ():
                if match := re.match(r"([a-z]\w*):", line):
                    holders.setdefault(match[1], []).append(option)
        return holders


def usage(groups: Groups) -> str:
    """Return the text of `--help`: one line per group and option, including the user's own."""
    lines = [
        "alignlab: align language models by configuration.",
        "",
        "usage: python -m alignlab [group=option | setting=value]...",
        "",
        "  python -m alignlab                              the default run: offline, on two cores, in minutes",
        "  python -m alignlab method=rm seed=3             another method, another seed",
        "  python -m alignlab method.kl_coef=0.1,0.3 -m    one run per value",
        "  python -m alignlab dry_run=true                 print the plan and stop",
        "  python -m alignlab method=dpo --help            explain the settings of an option",
        "  python -m alignlab --cfg job                    print every setting",
        "  python -m alignlab --config-dir conf …          options of your own, from the folder conf/",
        "",
        "Groups, and their options (* is the default, + is your own):",
    ]
    return "\n".join([*lines, *chain.from_iterable(group_lines(groups, group) for group in groups.options)])


def group_lines(groups: Groups, group: str) -> Iterator[str]:
    """Yield one group of the help: its name, and a line for each option, from the first line of its YAML."""
    default = _defaults().get(group, [])
    options = groups.options[group]
    if options:
        yield f"\n{group}="
    for option in options:
        file = groups.file(group, option)
        is_own = file is not None and not file.is_relative_to(conf_folder())
        symbol = "*" if option in default else "+" if is_own else " "
        yield f"  {symbol} {option:<16} {first_comment(file) if file else ''}"


def first_comment(path: Path) -> str:
    """Return the first comment of a YAML file, which describes it."""
    with path.open(encoding="utf-8") as lines:
        return next((line[1:].strip() for line in lines if line.startswith("# ") and "@package" not in line), "")


def _defaults() -> dict[str, list[str]]:
    from yaml import safe_load

    listed = safe_load((conf_folder() / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    chosen = {group: option for entry in listed if isinstance(entry, dict) for group, option in entry.items()}
    return {group: option if isinstance(option, list) else [option] for group, option in chosen.items()}
