"""What `conf/` holds: its groups and their options, and the help that lists them."""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import alignlab

OWN: dict[str, list[str]] = {"experiment": [], "constitution": []}  # files that a command has named by their path


def conf_folder() -> Path:
    """The folder of YAML files: inside the package where it was installed as a wheel, else beside it."""
    package = Path(alignlab.__file__).parent
    return package / "conf" if (package / "conf").exists() else package.parent / "conf"


def known_groups() -> dict[str, list[str]]:
    """The groups of `conf/` with their options."""
    folder = conf_folder()
    groups: dict[str, list[str]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_dir()):
        groups[str(path.relative_to(folder))] = sorted(
            f.stem for f in path.glob("*.yaml") if not f.name.startswith("_")
        )
    for group, names in OWN.items():
        groups.setdefault(group, []).extend(names)
    return groups


def options_with(group: str) -> dict[str, list[str]]:
    """The settings that options of a group hold themselves, each with the options that hold it."""
    found: dict[str, list[str]] = {}
    for option in known_groups().get(group, ()):
        path = conf_folder() / group / f"{option}.yaml"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            if match := re.match(r"([a-z]\w*):", line):
                found.setdefault(match[1], []).append(option)
    return found


def usage() -> str:
    """What `--help` prints: every group and option with a line each."""
    lines = [
        "alignlab: align language models by configuration.",
        "",
        "usage: python -m alignlab [group=option | setting=value]...",
        "",
        "  python -m alignlab                              the main job: offline, on two cores, in minutes",
        "  python -m alignlab method=rm seed=3             another method, another seed",
        "  python -m alignlab method.kl_coef=0.1,0.3 -m    one run a value",
        "  python -m alignlab dry_run=true                 print the plan and stop",
        "  python -m alignlab --cfg job                    print every setting",
        "",
        "Groups, and their options (* is the default):",
    ]
    return "\n".join([*lines, *chain.from_iterable(map(group_lines, known_groups()))])


def group_lines(group: str) -> Iterator[str]:
    """One group of the help: its name, and a line for each option, from the first line of its YAML."""
    defaults = _defaults()
    options = known_groups()[group]
    if options:
        yield f"\n{group}="
    for option in options:
        mark = "*" if defaults.get(group) == option else " "
        yield f"  {mark} {option:<16} {first_comment(conf_folder() / group / f'{option}.yaml')}"


def first_comment(path: Path) -> str:
    """The line that says what a YAML file is."""
    with path.open(encoding="utf-8") as lines:
        return next((line[1:].strip() for line in lines if line.startswith("# ") and "@package" not in line), "")


def _defaults() -> dict[str, str]:
    from yaml import safe_load

    listed = safe_load((conf_folder() / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return {group: option for entry in listed if isinstance(entry, dict) for group, option in entry.items()}
