"""The run folder: every file name stands once, and each sample holds the completions of three models."""

import ast
import json
from pathlib import Path

import pytest
from command import ROOT

from alignlab.errors import Failure
from alignlab.evaluation import Sample
from alignlab.pipeline import run_folder, sweep_folder
from alignlab.pipeline.measure_stage import completions_table, sample_records
from alignlab.runtime import run_files

PACKAGE = ROOT / "alignlab"
OWNERS = {Path(module.__file__) for module in (run_files, run_folder, sweep_folder)}


def constants(module) -> set[str]:
    """The file names that a module defines."""
    values = [value for name, value in vars(module).items() if name.isupper()]
    texts = [text for value in values for text in (value if isinstance(value, tuple) else [value])]
    return {text for text in texts if isinstance(text, str) and "." in text}


def texts(file: Path) -> set[str]:
    """The string literals of a file that are no docstrings, and the last parts of those that are paths."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    literals = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    }
    return literals | {literal.rpartition("/")[2] for literal in literals}


def test_the_name_of_every_file_of_a_run_stands_in_its_owner_alone():
    names = constants(run_files) | constants(run_folder) | constants(sweep_folder)
    assert {"result.json", "samples.jsonl", "gates.jsonl", "sweep.md", "trial.json"} <= names
    found = {file: texts(file) & names for file in PACKAGE.rglob("*.py") if file not in OWNERS}
    config = PACKAGE / "config" / "groups.py"  # conf/config.yaml, which is no file of a run
    rows = PACKAGE / "pocket" / "annotators.py"  # pocket's rows of the view `labels`
    assert {file: text for file, text in found.items() if text} == {config: {"config.yaml"}, rows: {"labels.jsonl"}}


@pytest.fixture
def records():
    """A prompt that three models complete in their own ways."""
    prompt = [{"role": "user", "content": "why"}]
    samples = [
        Sample("1", "fact", prompt, text, finished, tokens)
        for text, finished, tokens in (("of the base", False, 32), ("of sft", True, 3), ("of ppo", True, 4))
    ]
    return sample_records(*([sample] for sample in samples), {"1": {"gold/score": 0.75}})


def test_a_sample_holds_each_models_own_completion_end_and_length(records):
    assert records == [
        {
            "id": "1",
            "kind": "fact",
            "prompt": [{"role": "user", "content": "why"}],
            "before": {"completion": "of the base", "finished": False, "tokens": 32},
            "previous": {"completion": "of sft", "finished": True, "tokens": 3},
            "after": {"completion": "of ppo", "finished": True, "tokens": 4},
            "scores": {"gold/score": 0.75},
        }
    ]


def test_samples_are_read_as_they_were_written(records, tmp_path):
    run_folder.write_lines(tmp_path / run_folder.SAMPLES, records)
    assert run_folder.read_samples(tmp_path) == records
    assert run_folder.read_samples(tmp_path / "elsewhere") == []
    assert completions_table(records, 1)[1] == [["1", "fact", "why", "of the base", "of sft", "of ppo", 0.75]]


def test_what_was_not_finite_is_left_out_of_the_curves(tmp_path):
    (tmp_path / run_files.METRICS).write_text('{"step": 2, "train/loss": null, "train/lr": 0.5}\n{"step": 4, "tr')
    assert run_folder.read_metrics(tmp_path) == [(2, {"train/lr": 0.5})]


def test_a_file_that_is_missing_or_broken_is_named(tmp_path):
    with pytest.raises(Failure, match=r"result\.json: is not there; give the folder of a finished run"):
        run_folder.read_result(tmp_path)
    (tmp_path / run_files.METRICS).write_bytes(b'{"step": 2}\n{"step": 4, "tr{"step": 6}\n')
    with pytest.raises(Failure, match=r"metrics\.jsonl:2: is not JSON .*; remove the line"):
        run_folder.read_metrics(tmp_path)
    for content in (b"{", b'{"stage": "\xff"}', b"[" * 200_000):
        (tmp_path / run_folder.RESULT).write_bytes(content)
        with pytest.raises(Failure, match=r"result\.json: is not JSON"):
            run_folder.read_result(tmp_path)


def test_a_folder_of_finished_runs_is_a_sweep_and_a_run_is_none(tmp_path):
    for number in (10, 9):
        (tmp_path / str(number)).mkdir()
    assert not sweep_folder.is_sweep(tmp_path)
    (tmp_path / "10" / run_folder.RESULT).write_text(json.dumps({"stage": "sft"}))
    assert sweep_folder.is_sweep(tmp_path)
    assert not sweep_folder.is_sweep(tmp_path / "10")
    assert [place.name for place in sweep_folder.run_folders(tmp_path)] == ["9", "10"]


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path):
    names = [run_folder.make_exclusively(tmp_path / "day" / "12-00-00-sft").name for _ in range(3)]
    assert names == ["12-00-00-sft", "12-00-00-sft-2", "12-00-00-sft-3"]
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match=r"cannot be made .*; set ALIGNLAB_OUTPUTS to a folder that you may write"):
        run_folder.make_exclusively(tmp_path / "file" / "run")


def test_the_latest_run_is_found_after_its_folder_was_moved(tmp_path):
    run = tmp_path / "outputs" / "2026-01-02" / "10-00-00-sft"
    run.mkdir(parents=True)
    run_folder.point_latest(run)
    (tmp_path / "outputs").rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "latest").samefile(tmp_path / "moved" / "2026-01-02" / "10-00-00-sft")
