"""The seven additions of docs/extending.md, written into a folder outside the package, and used from there."""

import json
import re

import pytest
from command import ROOT, alignlab

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(?:python|yaml)\n# ((?:\w+/)+\w+\.(?:py|yaml))\n(.*?)```", re.DOTALL)
FILES = dict(BLOCK.findall(PAGE))
SMALL = ["model=pocket_small", "dataset=pocket_small", "tracking=jsonl"]
QUICK = [*SMALL, "evaluation.prompts=20"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Give a folder that holds every example of the page, and nothing of alignlab."""
    monkeypatch.setenv("ALIGNLAB_OUTPUTS", str(tmp_path / "outputs"))
    for name, text in FILES.items():
        file = tmp_path / "project" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return tmp_path / "project"


def run(project, *arguments):
    """Run a command from the project's folder; return what it prints."""
    done = alignlab("--config-dir", "conf", *arguments, folder=project)
    assert done.returncode == 0, done.stderr
    return done.stdout


def results(project):
    """Return the last run's measurements by name."""
    latest = project.parent / "outputs" / "latest" / "result.json"
    return {row["name"]: row for row in json.loads(latest.read_text())["measurements"]}


def test_the_page_has_an_example_of_each_addition():
    folders = {name.split("/")[0] for name in FILES} - {"conf"}
    assert folders == {"methods", "measures", "rewards", "judges", "formats", "tasks", "hardware"}


def test_help_lists_the_users_own_options(project):
    told = run(project, "--help")
    for option in ("raft", "questions", "brevity", "shortest", "count_words", "ddp_four", "grade_school"):
        assert re.search(rf"^  \+ {option} +\S", told, re.MULTILINE), option


@pytest.mark.runs
def test_a_method_and_a_measurement_of_the_users_own(project):
    few = [
        "method.prompts=8",
        "method.samples=2",
        "method.max_steps=2",
        "stages.sft.max_steps=2",
        "stages.rm.max_steps=2",
    ]
    run(project, "method=raft", "measure=[length,questions]", *few, *QUICK)
    assert 0 <= results(project)["questions/rate"]["value"] <= 1
    assert "gold/helpful" not in results(project)


@pytest.mark.runs
def test_a_reward_of_the_users_own_trains_ppo(project):
    few = ["method.total_episodes=16", "method.batch_size=8", "method.num_mini_batches=1", "method.policy=base"]
    gates = ["method.gates.before=off", "method.gates.during=off"]
    run(project, "method=ppo", "reward=brevity", "reward.per_word=0.2", *few, *gates, *QUICK)
    metrics = (project.parent / "outputs" / "latest" / "ppo" / "metrics.jsonl").read_text().splitlines()
    logged = [row for row in map(json.loads, metrics) if "reward/mean" in row]
    assert len(logged) == 2
    assert all(row["reward/mean"] < 0 for row in logged)


@pytest.mark.runs
def test_a_reward_of_the_users_own_may_be_part_of_a_mixture(project):
    parts = ["reward.parts.short.weight=1", "reward.parts.short.normalize=false"]
    own = ["reward.parts.short.reward.kind=brevity", "reward.parts.short.reward.per_word=0.1"]
    run(project, "method=ppo", "reward=mixture", *parts, *own, *SMALL, "dry_run=true")
    done = alignlab("--config-dir", "conf", "reward=mixture", *parts, *own[:1], *SMALL, folder=project)
    assert done.returncode == 2
    assert (
        done.stderr
        == "reward.parts.short.reward.per_word: no value was given; add reward.parts.short.reward.per_word=…\n"
    )


@pytest.mark.runs
def test_a_judge_of_the_users_own_makes_preference_data(project):
    few = ["preferences.prompts=6", "preferences.samples=3", "judge.unit=characters"]
    told = run(project, "task=preferences", "judge=shortest", *few, *SMALL).splitlines()
    (labelled,) = (line for line in told if "prompts labelled by judge=shortest" in line)
    assert int(labelled.split()[0]) > 0
    pairs = (project / told[-2] / "pairs.jsonl").read_text().splitlines()
    assert all(len(row["chosen"][0]["content"]) < len(row["rejected"][0]["content"]) for row in map(json.loads, pairs))


@pytest.mark.runs
def test_a_data_format_of_the_users_own_is_read(project):
    rows = [{"question": f"{n} + 1?", "solution": f"Add. #### {n + 1}"} for n in range(20)]
    (project / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = run(project, "task=prepare", "dataset=grade_school", "dataset.path=rows.jsonl", "model=scratch")
    prepared = sorted((project / told.splitlines()[-1]).parent.rglob("demonstrations.jsonl"))
    answers = [row["messages"][-1]["content"] for file in prepared for row in map(json.loads, file.open())]
    assert sorted(answers) == sorted(row["solution"] for row in rows)


@pytest.mark.runs
def test_a_sweep_over_an_option_of_the_users_own_is_planned(project):
    told = run(project, "method=raft", "method.samples=2,3", "-m", *SMALL, "dry_run=true")
    assert told.startswith("sweep: 2 runs (grid)")


@pytest.mark.runs
def test_a_kind_of_hardware_of_the_users_own_is_planned(project):
    told = run(project, "method=sft", "seed=77", "hardware=ddp_four", *SMALL, "dry_run=true")
    assert "4 devices" in told


@pytest.mark.runs
def test_a_task_of_the_users_own(project):
    written = run(project, "task=count_words", "task.most=3", *SMALL).splitlines()[-1]
    assert len(json.loads((project / written).read_text())) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["method=raftt"], "method: no option 'raftt'; did you mean 'raft'?"),
        (["method=raft", "method.sampels=2"], "method.sampels: unknown key; did you mean 'samples'?"),
        (["method=raft", "method.samples=x"], "method.samples: 'x' is not a whole number"),
        (["reward=brevity", "reward.per_word=-1"], "reward.per_word: -1: input should be greater than or equal to 0"),
        (["reward=brevity", "reward.perword=1"], "reward.perword: unknown key; did you mean 'per_word'?"),
        (["measure=[question]"], "measure: no option 'question'; did you mean 'questions'?"),
        (["task=count_words", "task.most=0"], "task.most: 0: input should be greater than or equal to 1"),
    ],
)
def test_mistakes_in_the_users_own_options_are_explained(project, arguments, message):
    done = alignlab("--config-dir", "conf", *arguments, *SMALL, folder=project)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, message)


@pytest.mark.runs
def test_a_method_with_the_three_required_names_alone_is_planned(project):
    text = '''
"""A method that declares nothing optional."""
from alignlab.config.method import Training

VIEW = "demonstrations"


class Config(Training):
    """No settings of its own."""


def train(run):
    """Train nothing."""
'''
    (project / "methods" / "bare.py").write_text(text)
    (project / "conf" / "method" / "bare.yaml").write_text(
        "# Nothing\ndefaults: [_training, _self_]\nname: bare\npolicy: base\n"
        "learning_rate: 1.0e-4\nnum_train_epochs: 1\n"
    )
    assert "bare " in run(project, "method=bare", *SMALL, "dry_run=true")
    done = alignlab("--config-dir", "conf", "method=bare", "method.policy=auto", *SMALL, "dry_run=true", folder=project)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("method.policy: no stage makes a model for bare; use base, a folder")
    (project / "methods" / "bare.py").write_text(text + '\n\nNEEDS = {"policy": "sft"}\n')
    done = alignlab("--config-dir", "conf", "method=bare", "method.policy=auto", *SMALL, "dry_run=true", folder=project)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("stages.sft: has no settings, and bare needs that stage; add '- /method@_global_")
    (project / "methods" / "bare.py").write_text(text.partition("def train")[0])
    done = alignlab("--config-dir", "conf", "method=bare", *SMALL, folder=project)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("method: methods.bare declares no train; see docs/extending.md")
    (project / "methods" / "bare.py").unlink()
    done = alignlab("--config-dir", "conf", "method=bare", *SMALL, folder=project)
    assert done.stderr.startswith("method: bare has no Python module; write methods/bare.py in this folder")


def test_a_config_folder_that_is_not_there_is_one_sentence(tmp_path):
    done = alignlab("--config-dir", "nowhere", "method=sft", folder=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "nowhere is not a folder" in done.stderr


@pytest.mark.runs
def test_an_installed_package_adds_a_method_by_its_entry_point(tmp_path, project):
    """A package's metadata beside its module is all that an installation leaves."""
    site = tmp_path / "site"
    (site / "their_package-1.0.dist-info").mkdir(parents=True)
    (site / "their_package-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n"
    )
    (site / "their_package-1.0.dist-info" / "entry_points.txt").write_text(
        "[alignlab.methods]\ntheirs = their_package.method\n"
    )
    (site / "their_package" / "conf" / "method").mkdir(parents=True)
    (site / "their_package" / "__init__.py").write_text("")
    (site / "their_package" / "conf" / "__init__.py").write_text("")
    (site / "their_package" / "method.py").write_text(FILES["methods/raft.py"])
    yaml = FILES["conf/method/raft.yaml"].replace("name: raft", "name: theirs")
    (site / "their_package" / "conf" / "method" / "theirs.yaml").write_text(yaml)
    import os
    import subprocess
    import sys

    environment = os.environ | {"PYTHONPATH": f"{site}:{ROOT}"}
    command = [sys.executable, "-m", "alignlab", "hydra.searchpath=[pkg://their_package.conf]", "method=theirs", *SMALL]
    done = subprocess.run([*command, "dry_run=true"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^  theirs +run ", done.stdout, re.MULTILINE)
