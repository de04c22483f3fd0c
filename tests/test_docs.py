"""The README and the documentation: commands compose, messages are real, links lead somewhere, the tree is complete."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import chdir
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from command import ROOT, alignlab
from test_extending import FILES

from alignlab.config import command_line
from alignlab.config.compose import check, compose
from alignlab.config.reference import files_of, groups, settings_in_file
from alignlab.errors import Mistake

PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
MAKEFILE = (ROOT / "Makefile").read_text()
README = (ROOT / "README.md").read_text()


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks in one of the languages."""
    fenced = re.findall(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [body for _, language, body in fenced if language in languages]


def commands(text: str, program: str = "python -m alignlab") -> list[str]:
    """The commands of a program in blocks of bash, and in the running text."""
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    prose = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(rf"`({re.escape(program)}[^`]*)`", prose)
    typed = [line.split(" #")[0].strip() for line in lines if line.strip().startswith(program)]
    return [command for command in [*typed, *inline] if "…" not in command and "<" not in command]


def everywhere(program: str = "python -m alignlab") -> list[tuple[str, str]]:
    """Each command once, with the first page that has it."""
    pages: dict[str, str] = {}
    for page in PAGES:
        for command in commands(page.read_text(), program):
            pages.setdefault(command, page.name)
    return [(page, command) for command, page in pages.items()]


def arguments_in(folder: Path, arguments: list[str]) -> list[str]:
    """Put a file of the right kind in the place of each that a command names and that is not there."""
    short = (ROOT / "conf" / "constitution" / "short.yaml").read_text()
    content = {"experiment": "# @package _global_\n", "constitution": short}
    exists = {
        "dataset.path",
        "dataset.test_path",
        "dataset.train",
        "dataset.test",
        "judge.path",
        "task.prompts",
        *content,
    }
    changed = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "preferences.panel":
            (folder / "labels.jsonl").touch()
            argument = f"{key}=[{folder}]"
        elif key == "evaluation.data":
            argument = f"{key}={folder}"
        elif (key in exists and ("/" in value or value.endswith(".jsonl"))) or key == "preferences.people.path":
            paths = [folder / Path(name).name for name in value.strip("[]").split(",")]
            for path in paths:
                path.write_text(content.get(key, ""))
            argument = f"{key}={paths[0]}" if len(paths) == 1 else f"{key}=[{','.join(map(str, paths))}]"
        changed.append(argument)
    return changed


def composes(arguments: list[str], folder: Path) -> None:
    arguments = arguments_in(folder, arguments)
    if "--config-dir" in arguments:
        for name, text in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    if "--config-dir" in arguments and "--help" not in arguments:
        with chdir(folder):
            compose(
                *(argument for argument in arguments if argument not in {"--config-dir", "conf"}), config_dir="conf"
            )
    elif any(argument.startswith("-") and argument != "-m" for argument in arguments):
        assert alignlab(*arguments, folder=folder).returncode == 0
    else:
        overrides, groups = command_line.read([argument for argument in arguments if argument != "-m"])
        with command_line.stored(groups):
            check(overrides, binds=True, groups=groups)


def on_later_pages(command: tuple[str, str]) -> object:
    """Leave the commands of all pages but the first two to `make test-runs`."""
    first = command[0] in {"README.md", "getting-started.md"}
    return pytest.param(*command, marks=[] if first else pytest.mark.runs)


@pytest.mark.parametrize(("page", "command"), map(on_later_pages, everywhere()))
def test_every_command_of_the_documentation_composes(page, command, tmp_path):
    composes(shlex.split(command.partition("python -m alignlab")[2]), tmp_path)


def recipe(target: str) -> str:
    """The lines of a target's recipe."""
    found = re.search(rf"^{re.escape(target)}:.*##.*\n((?:\t.*\n)*)", MAKEFILE, re.MULTILINE)
    assert found, f"there is no target {target}"
    return found[1]


@pytest.mark.parametrize(("page", "command"), everywhere("make "))
def test_every_make_command_of_the_documentation_has_a_target_whose_run_composes(page, command, tmp_path):
    words = shlex.split(command)[1:]
    given = dict(word.partition("=")[::2] for word in words if "=" in word)
    for target in (word for word in words if "=" not in word):
        for run in re.findall(r"\$\(RUN\) ?(.*)", recipe(target)):
            composes(shlex.split(run.replace("$(ARGS)", given.get("ARGS", ""))), tmp_path)


def told() -> list[tuple[str, str, str]]:
    """Commands in blocks of `console`, each with what it prints."""
    shown = [(page, block) for page in PAGES for block in blocks(page.read_text(), "console")]
    parts = [(page, *part.split("\n", 1)) for page, block in shown for part in re.split(r"^\$ ", block, flags=re.M)[1:]]
    return [(page.name, typed, said.strip()) for page, typed, said in parts]


@pytest.mark.parametrize(("page", "typed", "said"), told())
def test_every_message_of_the_documentation_is_what_the_command_says(page, typed, said):
    with pytest.raises(Mistake) as mistake:
        check(shlex.split(typed.partition("python -m alignlab")[2]), binds=True)
    assert str(mistake.value) == said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page):
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in link and not link.startswith("settings/"):
            assert (page.parent / link).exists(), link
    for name in re.findall(r"\]\(settings/([\w-]+)\.md", page.read_text()):
        assert name == "top" or name.replace("-", "/") in groups(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_of_python_and_yaml_can_be_read(page):
    for block in blocks(page.read_text(), "python"):
        ast.parse(block)
    for block in blocks(page.read_text(), "yaml"):
        yaml.safe_load(block)


def test_the_readme_is_short_and_has_eight_commands_to_type_next():
    assert 5500 <= len(README.encode()) <= 6500
    section = README.partition("## What to type next")[2].partition("\n## ")[0]
    assert len(commands("\n".join(f"```bash\n{block}```" for block in blocks(section, "bash")))) == 8


def test_the_readmes_tree_is_complete():
    """Each folder and file at the top of the repository, and each package, in the order in which they import."""
    section = README.partition("## The folders")[2]
    (tree,) = blocks(section.partition("\n## ")[0], "")
    lines = [line.partition("  ")[0] if line[0] != " " else line[2:].partition(" ")[0] for line in tree.splitlines()]
    inner = [line for line, text in zip(lines, tree.splitlines(), strict=True) if text.startswith("  ")]
    top = [name for line, text in zip(lines, tree.splitlines(), strict=True) if text[0] != " " for name in text.split()]
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        there = {path.partition("/")[0] + "/" * ("/" in path) for path in listed.stdout.splitlines()}
        assert there - {".gitignore"} <= set(top)
        assert {name for name in top if name[-1] == "/" or name in {"Makefile", "LICENSE"}} <= there
    package = {path.name + "/" * path.is_dir() for path in (ROOT / "alignlab").iterdir() if path.name[0] not in "_."}
    assert set(inner) == package
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [re.split(r" [|:] ", layer) for layer in contracts[0]["layers"]]
    levels = {name: level for level, layer in enumerate(layers) for name in layer}
    order = [levels[name.rstrip("/").removesuffix(".py")] for name in inner]
    assert order == sorted(order)


def test_the_settings_pages_have_a_row_for_every_setting():
    page = documentation("settings_pages").page
    for group in groups():
        tables = re.sub("<details>.*?</details>", "", "\n".join(page(group)), flags=re.DOTALL)
        rows = [line for line in tables.splitlines() if line.startswith(("| `", "| **`"))]
        assert len(rows) == sum(len(settings_in_file(group, name)) for name in files_of(group))


def documentation(module: str):
    """A module that lies beside the pages."""
    if str(ROOT / "docs") not in sys.path:
        sys.path.append(str(ROOT / "docs"))
    return import_module(module)


def test_the_drawing_of_the_packages_is_that_of_the_layers():
    """`python docs/draw_packages.py` writes it."""
    assert (ROOT / "docs" / "packages.svg").read_text() == documentation("draw_packages").drawing()


def test_every_test_that_the_security_page_names_is_there():
    named = set(re.findall(r"`(test_\w+|tests/[\w.]+)`", (ROOT / "SECURITY.md").read_text()))
    sources = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert len(named) > 10
    for name in named:
        assert (ROOT / name).is_file() if name.startswith("tests/") else f"def {name}(" in sources, name
