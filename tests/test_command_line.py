"""Commands as a user types them in a shell: any path works unquoted, or the message says what to type."""

import sys
from pathlib import Path

import pytest

from alignlab.config.command_line import read
from alignlab.config.compose import check, compose
from alignlab.config.overrides import values_of
from alignlab.errors import Mistake
from alignlab.main import main, split

FILE = ["model=scratch", "dataset=file"]
NAMES = [f"a{c}b" for c in "()[]{}=,;#é中&!^~$@%+|:'\"<>*? \\`"]
NAMES += [
    "(1)", "[a]", "[a]b", "[a,b]", "{a:1}", "a(1,2)", "a,b(", "a, b", "données été (v2)", "中文数据", "🙂", "x=1", "=",
    "choice(1,2)", "it's", '"q"', "a\\,b", "a${b}c", "${b}", "~a", "null.x", "a\\", "\\", "#1", "a,b,c", " a",
    "e\u0301",
]  # fmt: skip


def values(argument):
    """The values that Hydra reads from one argument: one, or those of a sweep."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    parser = OverridesParser.create()
    (override,) = (parser.parse_override(text) for text in read([argument]).overrides)
    each = values_of(override)
    read_values = [parser.parse_override(f"key={value}").value() for value in each]
    tree = OmegaConf.create({"values": [getattr(value, "text", value) for value in read_values]})
    return OmegaConf.to_container(tree, resolve=True)["values"]


@pytest.mark.parametrize("key", ["dataset.path", "dataset.test_path", "model.path", "reward.path", "method.policy"])
@pytest.mark.parametrize("name", NAMES)
def test_an_existing_path_is_read_as_it_is_typed(name, key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.jsonl").write_text("{}")
    (tmp_path / name).mkdir()
    for path in (name, f"{name}.jsonl", f"./{name}.jsonl", str(tmp_path / f"{name}.jsonl")):
        assert values(f"{key}={path}") == [path]


@pytest.mark.parametrize("name", [name for name in NAMES if "," not in name and not set(name) & set("\\${}\"'")])
def test_a_path_that_is_not_there_is_named_as_it_was_typed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert values(f"dataset.path=no/{name}.jsonl") == [f"no/{name}.jsonl"]


@pytest.mark.parametrize("name", [name for name in NAMES if not set(name) & set("$,\\\"'<>")])
def test_each_value_of_a_sweep_and_of_a_list_is_read(name):
    if any(name.count(a) != name.count(b) for a, b in ("()", "[]", "{}")):
        return  # the values cannot be told apart without Hydra's quotes
    assert values(f"dataset.path=no/{name}.jsonl,x.jsonl") == [f"no/{name}.jsonl", "x.jsonl"]
    assert values(f"dataset.path=[no/{name}.jsonl,x.jsonl]") == [[f"no/{name}.jsonl", "x.jsonl"]]


@pytest.mark.parametrize("name", ["a(b)", "é #1;", "a=b", "x [1]", "a, b"])
def test_an_odd_path_arrives_in_the_config(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.jsonl").write_text('{"text": "Hello."}\n')
    assert compose(*FILE, f"dataset.path={name}.jsonl").dataset.path == (Path(f"{name}.jsonl"),)
    with pytest.raises(Mistake, match="is not there; give a file or a folder" if "," not in name else "several runs"):
        check(read([*FILE, f"dataset.path=no/{name}.jsonl"]).overrides, binds=True, multirun=False)


LEFT_ALONE = ["seed=1", "dataset.path=a/b-1.jsonl", "method.kl_coef=0.1,0.3", "~method.beta", "dataset.path='a b'"]
LEFT_ALONE += ['dataset.path="a,b"', "measure=[gold,length]", "x=${seed}", "x=choice(1,2)", "é=1", "a"]


@pytest.mark.parametrize("argument", LEFT_ALONE)
def test_values_of_hydras_grammar_are_left_alone(argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read([argument]).overrides == [argument]


@pytest.mark.parametrize("key", ["dataset.path", "dataset.test_path"])
def test_the_home_folder_is_found(key, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a b.jsonl").write_text('{"text": "Hello."}\n')
    settings = compose(*FILE, f"dataset.path={tmp_path}/a b.jsonl", f"{key}=~/a b.jsonl").dataset
    assert settings.input_paths[key.partition(".")[2]] == (tmp_path / "a b.jsonl",)


@pytest.mark.parametrize(
    ("choices", "key"),
    [(FILE, "dataset.path"), (["model=local"], "model.path"), (["model=scratch", "dataset=hh_rlhf"], "dataset.train"),
     ([], "method.policy"), ([], "method.reward_model"), (["reward=classifier"], "reward.path"),
     (["dataset=hub"], "dataset.path"), (["task=evaluate"], "task.model")],
)  # fmt: skip
@pytest.mark.parametrize("empty", ["", *(pytest.param(typed, marks=pytest.mark.runs) for typed in ("''", "' '"))])
def test_an_empty_path_is_not_the_current_folder(choices, key, empty):
    with pytest.raises(Mistake) as error:
        compose(*choices, f"{key}={empty}")
    assert f"{key}: no value was given; add {key}=…" in str(error.value)


@pytest.mark.parametrize("values", ["0.1,0.3,1", "0,3", "choice(0.1,0.3)", "range(0,3)"])
@pytest.mark.parametrize("more", [[], ["dry_run=true"], ["--cfg", "job"]])
def test_a_forgotten_m_is_one_sentence(values, more, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["alignlab", f"method.kl_coef={values}", *more])
    with pytest.raises(SystemExit) as left:
        main()
    message = capsys.readouterr().err
    assert (left.value.code, message.count("\n")) == (2, 1)
    assert message.startswith(f"method.kl_coef: {values} stands for several runs; add -m for one run per value")
    if "(" not in values:
        assert f"'method.kl_coef=[{values}]'" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method=sft"], "--method=sft: is not a flag; settings have no dashes: write method=sft"),
        (["-m", "--seed=1,2"], "--seed=1,2: is not a flag; settings have no dashes: write seed=1,2"),
        (["-mseed=1"], "-mseed=1: is not a flag; settings have no dashes: write mseed=1"),
        (["--multi"], "--multi: is not a flag; did you mean '--multirun'?"),
        (["--config-name=foo"], "--config-name: alignlab has one config; choose an option: experiment=NAME"),
        (["--config-name", "foo"], "--config-name: alignlab has one config"),
        (["--cfg", "method=sft"], "--cfg: 'method=sft' is none of job, hydra, all"),
        (["--"], "--: is not a flag"),
    ],
)
def test_what_begins_with_a_dash_is_a_flag_or_refused(arguments, message):
    with pytest.raises(Mistake) as error:
        split(arguments)
    assert str(error.value).startswith(message)


def test_flags_and_settings_may_come_in_any_order():
    assert split(["-m", "seed=1,2", "--cfg=job", "method=sft"]) == (["-m", "--cfg", "job"], ["seed=1,2", "method=sft"])


@pytest.mark.parametrize("name", ["my exp", "été (1)", "a,b", "a=b", "#1", "中"])
def test_an_experiment_file_may_have_any_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{name}.yaml").write_text("# @package _global_\nseed: 7\n")
    (tmp_path / "other.yaml").write_text("# @package _global_\nseed: 8\n")
    assert compose(f"experiment={name}.yaml").seed == 7
    if "," not in name:
        (argument,) = read([f"experiment={name}.yaml,other.yaml"]).overrides
        assert argument.endswith(",file_other")


@pytest.mark.parametrize("name", ["my conf", "conf (1)", "été", "a,b", "it's"])
def test_a_config_folder_may_have_any_name(name, tmp_path):
    (tmp_path / name / "experiment").mkdir(parents=True)
    (tmp_path / name / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    assert compose("experiment=mine", config_dir=str(tmp_path / name)).seed == 7
