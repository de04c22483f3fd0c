"""Compare models: each is asked once, what flipped, and the exit codes of gate and promote on real folders."""

import pytest
from command import config
from tiny import WORDS, tiny_model, tiny_tokenizer

import alignlab
from alignlab.errors import Refused
from alignlab.evaluation import subjects
from alignlab.pipeline.compared_models import short_names
from alignlab.pipeline.registry import Registry
from alignlab.pipeline.run_folder import read_json, read_result, write_lines
from alignlab.runtime.files import read_lines


@pytest.fixture
def command(tmp_path, monkeypatch):
    """A function that runs a task on two tiny models: every token is as likely as any other by `a`, not by `b`."""
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        model = tiny_model(context=256)
        if name == "a":
            model.lm_head.weight.data.zero_()
        model.save_pretrained(tmp_path / name)
        tiny_tokenizer().save_pretrained(tmp_path / name)
    pairs = [(first, second) for first in WORDS for second in WORDS]
    rows = [{"prompt": f"how do {first} {second}", "completion": f"{second} {first}"} for first, second in pairs]
    write_lines(tmp_path / "rows.jsonl", rows)
    data = ["model=local", "model.path=a", "dataset=file", "dataset.path=rows.jsonl", "dataset.test=0.5"]

    def run(name, *overrides):
        folder = tmp_path / f"run-{len(list(tmp_path.glob('run-*')))}"
        alignlab.run(config(f"task={name}", *data, "hardware.device=cpu", *overrides), folder)
        return folder

    return run


@pytest.mark.runs
def test_models_are_compared_once_and_what_is_recorded_is_not_asked_again(command, monkeypatch):
    compared = ["task.runs=[a,b]", "measure=[perplexity,capabilities]", "measure.capabilities.items=30"]
    folder = command("compare", *compared)
    first, second = (read_result(folder / name)["measurements"] for name in "ab")
    assert all(row["difference"] == {} for row in first)
    changes = {row["name"]: row["difference"]["before"] for row in second}
    (uniform,) = (row["value"] for row in first if row["name"] == "eval/perplexity")
    assert uniform == pytest.approx(len(tiny_tokenizer()))
    flips = [row for row in read_lines(folder / "b" / "flipped.jsonl") if row["measure"] == "capabilities/accuracy"]
    (n,) = (row["n"] for row in second if row["name"] == "capabilities/accuracy")
    assert flips
    assert sum(row["gain"] for row in flips) / n == pytest.approx(changes["capabilities/accuracy"]["value"])
    assert "b against a" in (folder / "comparison.html").read_text()

    def loaded(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(subjects, "load_policy", loaded)
    again = command("compare", *compared)
    assert read_result(again / "b")["measurements"] == second


@pytest.mark.runs
def test_gate_refuses_with_code_3_and_promote_puts_into_service_what_passes(command, tmp_path):
    settings = ["task.objective=[eval/perplexity]", "task.bounds.safety=null", "task.bounds.over_refusal=null"]
    settings += ["task.bounds.capabilities.measures=[eval/perplexity]", "measure=[perplexity]"]
    better, worse = "ab"
    with pytest.raises(Refused, match="task=gate: objective: perplexity of held-out demonstrations: ") as refused:
        command("gate", f"task.model={worse}", f"task.baseline={better}", *settings)
    assert refused.value.exit_code == 3
    assert "this is decided: more prompts would not change it" in str(refused.value)
    promoted = command("promote", f"task.model={better}", f"task.baseline={worse}", *settings)
    registry = Registry(tmp_path / "registry")
    assert registry.current()["version"] == read_json(promoted / "decision.json")["version"] == 1
    assert "is promoted as version 1" in (promoted / "decision.html").read_text()
    with pytest.raises(Refused, match="task=promote: objective: "):
        command("promote", f"task.model={better}", *settings)  # it is no better than itself
    assert [entry["action"] for entry in registry.entries()] == ["promoted", "refused"]
    assert registry.entries()[1]["facts"]["decision"]["checks"][0]["outcome"] == "undecided"


def test_short_names_are_different_and_fit_folders():
    assert short_names(["outputs/day/12-sft/model", "owner/na me", "x/12-sft", "base", "registry/models/3"]) == [
        "12-sft",
        "na-me",
        "12-sft-2",
        "base",
        "models-3",
    ]
    assert short_names(["a/kto", "b/kto", "c/kto", "kto-2"]) == ["kto", "kto-2", "kto-3", "kto-2-2"]
