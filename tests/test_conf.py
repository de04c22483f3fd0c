"""Every YAML file binds; help lists every group and option."""

import re
from itertools import zip_longest

import pytest
from command import ROOT, alignlab, config

from alignlab.config.compose import check
from alignlab.config.groups import Groups, usage

OPTIONS = [(group, option) for group, options in Groups().options.items() for option in options]
APART = ("constitution", "hardware", "tracking")  # groups that do not touch each other: one command has one of each
ROUNDS = list(zip_longest(*(Groups().options[group] for group in APART)))
SUITES = {("evaluation", name): [f"evaluation.data={ROOT}"] for name in ("bias", "hhh", "safety", "full")}
NEEDS = SUITES | {  # what an option cannot do without
    ("dataset", "hh_rlhf"): ["model=scratch", f"dataset.train={__file__}", f"dataset.test={__file__}"],
    ("dataset", "feedback"): ["model=scratch"],
    ("dataset", "pocket_feedback"): ["model=pocket_small"],
    ("dataset", "file"): ["model=scratch", f"dataset.path={__file__}"],
    ("task", "evaluate"): ["task.model=somewhere"],
    ("task", "generate"): [f"task.prompts={__file__}"],
    ("task", "key"): ["task.user=ann"],
    ("task", "compare"): ["task.runs=[base,owner/name]"],
    ("task", "gate"): ["task.model=somewhere"],
    ("task", "promote"): ["task.model=somewhere"],
    ("task", "soup"): ["task.models=[base,owner/name]"],
    ("model", "local"): ["model.path=owner/name"],
    ("dataset", "pocket_dialogues"): ["model=pocket_t5"],
    ("model", "pocket_t5"): ["dataset=pocket_dialogues"],
    ("dataset", "hub"): ["model=scratch", "dataset.path=owner/name"],
    ("reward", "classifier"): ["reward.path=owner/name", "reward.label=nothate"],
    ("reward", "function"): ["reward.function=os.path:join"],
    ("judge", "openai"): ["judge.url=http://127.0.0.1:8000/v1", "judge.model=any"],
    ("reward", "judge"): ["reward.url=http://127.0.0.1:8000/v1", "reward.model=any"],
    ("reward", "url"): ["reward.url=http://127.0.0.1:8000/score"],
    ("reward", "constrained"): [f"reward.costs.harm.reward.{own}" for own in ("path=owner/name", "label=toxic")],
    ("reward", "ensemble"): [f"reward.members.{name}.{own}" for name in "ab" for own in ("kind=model", "path=auto")],
}


def test_every_measurement_binds():
    names = ",".join(Groups().options["measure"])
    check([f"measure=[{names}]", f"evaluation.data={ROOT}"], binds=True)


@pytest.mark.parametrize("chosen", ROUNDS, ids=str)
def test_every_option_of_groups_that_stand_apart_binds(chosen):
    check([f"{group}={option}" for group, option in zip(APART, chosen, strict=True) if option], binds=True)


@pytest.mark.parametrize(("group", "option"), [pair for pair in OPTIONS if pair[0] not in {*APART, "measure"}])
def test_every_option_binds(group, option, request):
    if option.startswith("smollm2_safety"):
        request.getfixturevalue("data_folder")
    more = NEEDS.get((group, option), [])
    if (group, option) == ("model", "scratch"):
        more = ["dataset=hh_rlhf", *NEEDS["dataset", "hh_rlhf"][1:]]
    if option.endswith("_small"):
        more = [f"{other}=pocket_small" for other in ("model", "dataset")]
    check([f"{group}={option}", *more], binds=True)


@pytest.mark.parametrize(
    "suite", [name if name == "full" else pytest.param(name, marks=pytest.mark.runs) for _, name in SUITES]
)
def test_a_suite_measures_its_list_with_an_experiment_too_and_what_is_typed_wins(suite):
    data = f"evaluation.data={ROOT}"
    alone = list(config(f"evaluation={suite}", data).measure)
    assert alone == list(config("experiment=reward_hacking", f"evaluation={suite}", data).measure)
    assert list(config(f"evaluation={suite}", data, "measure=[length]").measure) == ["length"]
    assert config("experiment=reward_hacking", f"evaluation={suite}", data).evaluation.prompts == 150


def test_help_has_a_line_for_every_option():
    told = usage(Groups())
    lines = [re.search(rf"^  [ *] {re.escape(option)} +\S", told, re.MULTILINE) for _, option in OPTIONS]
    assert [option for option, line in zip(OPTIONS, lines, strict=True) if not line] == []


def test_every_value_of_the_yaml_files_has_its_type_in_a_shape():
    assert config().model_dump()["seed"] == 0


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
