"""Every YAML file binds; help lists every group and option; the README's commands compose."""

import re
import shlex
from pathlib import Path

import pytest
from command import ROOT, alignlab, config

from alignlab.config.compose import check
from alignlab.config.groups import known_groups, usage

OPTIONS = [(group, option) for group, options in known_groups().items() for option in options]
NEEDS = {  # what an option cannot do without
    ("dataset", "hh_rlhf"): ["model=scratch", f"dataset.train={__file__}", f"dataset.test={__file__}"],
    ("dataset", "file"): ["model=scratch", f"dataset.path={__file__}"],
    ("task", "evaluate"): ["task.model=somewhere"],
    ("model", "local"): ["model.path=owner/name"],
    ("dataset", "pocket_dialogues"): ["model=pocket_t5"],
    ("model", "pocket_t5"): ["dataset=pocket_dialogues"],
    ("dataset", "hub"): ["model=scratch", "dataset.path=owner/name"],
    ("reward", "classifier"): ["reward.path=owner/name", "reward.label=nothate"],
    ("reward", "function"): ["reward.function=os.path:join"],
    ("judge", "openai"): ["judge.url=http://127.0.0.1:8000/v1", "judge.model=any"],
    ("reward", "judge"): ["reward.url=http://127.0.0.1:8000/v1", "reward.model=any"],
    ("reward", "url"): ["reward.url=http://127.0.0.1:8000/score"],
    ("reward", "ensemble"): [f"reward.members.{name}.{own}" for name in "ab" for own in ("kind=model", "path=auto")],
}


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_binds(group, option):
    more = NEEDS.get((group, option), [])
    if (group, option) == ("model", "scratch"):
        more = ["dataset=hh_rlhf", *NEEDS["dataset", "hh_rlhf"][1:]]
    if option.endswith("_small"):
        more = [f"{other}=pocket_small" for other in ("model", "dataset")]
    check([f"{group}={option}", *more], binds=True)


def test_help_has_a_line_for_every_option():
    told = usage()
    lines = [re.search(rf"^  [ *] {re.escape(option)} +\S", told, re.MULTILINE) for _, option in OPTIONS]
    assert [option for option, line in zip(OPTIONS, lines, strict=True) if not line] == []


def test_every_value_of_the_yaml_files_has_its_type_in_a_shape():
    assert config().model_dump()["seed"] == 0


def commands(text: str) -> list[str]:
    """The `python -m alignlab` commands in fenced blocks of bash."""
    fences = text.split("```")
    blocks = [block.partition("\n")[2] for block in fences[1::2] if block.startswith("bash\n")]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split(" #")[0].strip() for line in lines if "python -m alignlab" in line]


README = commands((ROOT / "README.md").read_text())


@pytest.mark.parametrize("command", README)
def test_every_command_of_the_readme_composes(command, tmp_path):
    arguments = shlex.split(command.partition("python -m alignlab")[2])
    short = (ROOT / "conf" / "constitution" / "short.yaml").read_text()
    content = {"experiment": "# @package _global_\n", "constitution": short}
    exists = {"dataset.path", "dataset.train", "dataset.test", "judge.path", *content}
    found = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in exists and "/" in value:
            paths = [tmp_path / Path(one).name for one in value.strip("[]").split(",")]
            for path in paths:
                path.write_text(content.get(key, ""))
            argument = f"{key}={paths[0]}" if len(paths) == 1 else f"{key}=[{','.join(map(str, paths))}]"
        found.append(argument)
    if any(argument.startswith("-") and argument != "-m" for argument in found):
        assert alignlab(*found, folder=tmp_path).returncode == 0
    else:
        from alignlab.config.compose import continued, own_file

        check(continued([own_file(argument) for argument in found if argument != "-m"]), binds=True)


def test_the_readme_has_commands():
    assert len(README) >= 8


def test_a_command_adds_entries_with_names_of_its_own(tmp_path):
    members = [f"reward.members.{name}.{own}" for name in ("first", "second") for own in ("kind=model", "path=x")]
    done = alignlab("reward=ensemble", *members, "--cfg", "job", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "    second:\n      kind: model\n      path: x\n" in done.stdout


def test_an_installed_wheel_holds_every_package():
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "alignlab").rglob("__init__.py")}
    assert {*listed} == there | {"alignlab.conf"}
