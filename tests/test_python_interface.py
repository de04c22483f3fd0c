"""alignlab.compose and alignlab.run: what a command does, from Python, with nothing left behind in the process."""

import json
import os
import random
import signal
import sys
import warnings

import numpy as np
import pytest
import torch
from command import alignlab as command

import alignlab
from alignlab.errors import Mistake

SMALL = ["method=sft", "model=pocket_small", "dataset=pocket_small", "tracking=jsonl", "evaluation=quick"]
FEW = ["evaluation.prompts=10", "method.max_steps=5"]


def test_a_composed_config_is_the_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = alignlab.compose("method=dpo", "method.beta=0.3", "model=pocket_small", "dataset=pocket_small")
    assert (config.method.name, config.method.beta, config.choices["model"]) == ("dpo", 0.3, "pocket_small")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=dop"], "method: no option 'dop'; did you mean 'dpo'?"),
        (
            ["method=dpo", "method.betta=1", "seed=x"],
            "method.betta: unknown key; did you mean 'beta'?\nseed: 'x' is not",
        ),
        (["seed=1,2"], "compose: several values stand for several runs; compose one at a time"),
        (["sweep=seeds"], "compose: several values stand for several runs; compose one at a time"),
    ],
)
def test_mistakes_are_those_of_the_command(overrides, message):
    with pytest.raises(Mistake) as caught:
        alignlab.compose(*overrides)
    assert str(caught.value).startswith(message)


def test_composing_leaves_hydra_as_it_was():
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    stored = json.dumps(sorted(ConfigStore.instance().list("")))
    alignlab.compose(*SMALL)
    assert not GlobalHydra.instance().is_initialized()
    assert not HydraConfig.initialized()
    assert json.dumps(sorted(ConfigStore.instance().list(""))) == stored


@pytest.mark.runs
def test_two_runs_in_one_process_are_those_of_two_processes(tmp_path, monkeypatch):
    """Another number of threads in the first run changes nothing in the second."""
    from safetensors.torch import load_file

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    arguments, environment = list(sys.argv), dict(os.environ)
    handler, threads = signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    filters = list(warnings.filters)

    alignlab.run(alignlab.compose(*SMALL, *FEW, "hardware.threads=1"))
    result = alignlab.run(alignlab.compose(*SMALL, *FEW, "hardware.threads=2", "seed=1"))

    assert sys.argv == arguments
    assert dict(os.environ) == environment
    assert (signal.getsignal(signal.SIGTERM), torch.get_num_threads()) == (handler, threads)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states
    assert warnings.filters == filters

    done = command(*SMALL, *FEW, "hardware.threads=2", "seed=1", "hydra.run.dir=again", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    ours, theirs = (
        load_file(folder / "model.safetensors") for folder in (result.models["sft"], tmp_path / "again/sft/model")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    first, second = (
        json.loads((folder / "sft/provenance.json").read_text()) for folder in (result.folder, tmp_path / "again")
    )
    assert first["fingerprint"] == second["fingerprint"]


@pytest.mark.runs
def test_a_result_holds_measurements_models_and_the_report(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = alignlab.run(alignlab.compose(*SMALL, *FEW), folder=tmp_path / "mine")
    frame = result.measurements
    assert {"stage", "name", "value", "low", "high", "n", "better", "change", "since_base"} <= {*frame.columns}
    row = frame[frame["name"] == "eval/perplexity"].iloc[0]
    (stored,) = (
        one
        for one in json.loads((tmp_path / "mine/result.json").read_text())["measurements"]
        if one["name"] == "eval/perplexity"
    )
    assert (row["value"], row["change"]) == (stored["value"], stored["difference"]["previous"]["value"])
    assert result.report == tmp_path / "mine" / "report.html"
    assert (result.models["sft"] / "config.json").exists()


def test_a_run_without_a_folder_gets_a_new_one(tmp_path, monkeypatch):
    """Two runs of one second do not share a folder."""
    monkeypatch.chdir(tmp_path)
    from alignlab.pipeline.run_folder import new_folder

    config = alignlab.compose(*SMALL)
    folders = {new_folder(config) for _ in range(5)}
    assert len(folders) == 5
    assert all(folder.parent.parent.name == "outputs" and folder.name.partition("-sft")[1] for folder in folders)


@pytest.mark.runs
def test_the_examples_of_the_page_run_one_after_the_other(tmp_path):
    """The page's Python, as a reader would paste it."""
    import re
    import subprocess

    from command import ROOT

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    code = "\n".join(blocks).replace('"dataset=pocket_small")', '"dataset=pocket_small", "evaluation=quick")')
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "eval/perplexity" in done.stdout
    assert "method.beta | auto | float > 0 | auto" in done.stdout


def test_a_dry_run_of_any_task_prints_its_plan_and_does_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    alignlab.run(alignlab.compose(*SMALL, "task=evaluate", "task.model=base", "dry_run=true"), folder=tmp_path / "run")
    assert capsys.readouterr().out.startswith("plan: task=evaluate")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_request_to_stop_ends_with_its_run(monkeypatch):
    from alignlab.runtime import signals
    from alignlab.runtime.process_state import restored

    with restored():
        signals.request_stop()
        assert signals.stop_requested()
    assert not signals.stop_requested()
