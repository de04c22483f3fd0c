"""The reference of settings holds every key of conf/, each with its type, its value and a comment."""

import subprocess
import sys

import pytest
import yaml
from command import ROOT

from alignlab.config.groups import Groups
from alignlab.config.reference import Setting, builds_on, describe_option, files_of, settings_in_file, settings_of

FILES = [(group, name) for group in ["", *Groups().options] for name in files_of(group)]


def leaves(value, path=()):
    """Yield the path of every value that is no further group; lists of groups are counted by place."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    entries = [] if isinstance(value, list) and not any(isinstance(entry, dict) for entry in value) else list(entries)
    if not entries:
        yield ".".join(path)
    for key, entry in entries:
        yield from leaves(entry, (*path, str(key)))


@pytest.mark.parametrize(("group", "name"), FILES)
def test_every_key_of_a_file_is_in_the_reference_and_no_other(group, name):
    """A group that is written in one line, `{a: 1}`, is one setting there."""
    values = yaml.safe_load((ROOT / "conf" / group / f"{name}.yaml").read_text()) or {}
    values.pop("defaults", None)
    written = [path for path in leaves(values) if path]
    settings = settings_in_file(group, name)
    listed = [path for s in settings if s.default for path in leaves(read(s.default), (s.key,))]
    package = next((key.removesuffix(written[0]) for key in listed if key.endswith(written[0])), "") if written else ""
    assert sorted(listed) == sorted(f"{package}{path}" for path in written)
    assert [setting.key for setting in settings if not (setting.type and setting.comment)] == []


def read(default):
    return yaml.safe_load(default) if default.startswith("{") else default


def test_an_option_has_its_own_settings_and_those_that_it_builds_on():
    settings = {setting.key: setting for setting in settings_of("method", "dpo")}
    assert settings["method.beta"] == Setting(
        "method.beta",
        "auto | float > 0",
        "auto",
        "Strength of the KL constraint to the reference: larger stays closer. auto is 0.2 for pocket, else 0.1.",
        "method/dpo.yaml",
    )
    assert settings["method.learning_rate"].default == "auto"
    assert settings["method.learning_rate"].comment.startswith("Learning rate of Adam; larger learns faster")
    assert settings["method.weight_decay"].file == "method/_training.yaml"
    assert not [key for key in settings if key.startswith("stages.")]
    assert builds_on("method", "dpo") == ["method/_training.yaml", "method/sft.yaml"]
    assert (
        describe_option("sweep", "seeds")
        == "The same experiment with five seeds, and one table with mean and standard deviation."
    )


@pytest.mark.parametrize(
    ("group", "option", "key", "type_"),
    [
        ("method", "ppo", "method.gates.before", "stop | warn | off"),
        ("method", "ppo", "method.offload", "list of (reference | reward)"),
        ("method", "rm", "method.adam_beta1", "float from 0 to 1"),
        ("hardware", "zero3", "hardware.micro_batch_size", "auto | int ≥ 1"),
        ("hardware", "zero3", "hardware.deepspeed.zero_optimization.stage", "0 | 1 | 2 | 3"),
        ("dataset", "file", "dataset.path", "path | list of path"),
        ("judge", "both", "judge.clamp", "list of 2 (float from 0 to 1)"),
        ("reward", "mixture", "reward.parts.model.reward.path", "text"),
        ("task", "preferences", "preferences.prompts", "int ≥ 1 | null"),
        ("model/adapter", "lora", "model.adapter.r", "int ≥ 1"),
        ("sweep", "dpo_beta", "hydra.sweeper.params.seed", "values to try"),
    ],
)
def test_types_are_told_in_words(group, option, key, type_):
    assert {setting.key: setting.type for setting in settings_of(group, option)}[key] == type_


def test_the_reference_does_not_wait_for_torch():
    code = "import sys; from alignlab.config.reference import settings_of; settings_of('method', 'ppo')"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'torch' not in sys.modules"], check=True, cwd=ROOT)
