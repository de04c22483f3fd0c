"""Sweeps that run: killed and continued, on joblib and on submitit; a stage that two jobs need is built once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from command import alignlab, config

pytestmark = [pytest.mark.slow, pytest.mark.runs]

SMALL = ["model=pocket_small", "dataset=pocket_small", "tracking=jsonl", "evaluation=quick", "evaluation.prompts=2"]
QUICK = [*SMALL, "method=sft", "method.max_steps=6", "method.save_steps=2"]
SEARCH = [*QUICK, "sweep.sampler=random", "sweep.trials=4", "evaluation.split=validation"]
LESS = ("sweep.objective=eval/perplexity", "sweep.direction=minimize")
RANGE = "method.learning_rate=tag(log,interval(1e-5,1e-3))"


def ended(folder: Path) -> dict[str, int]:
    """The runs that have ended, and when."""
    return {file.parent.name: file.stat().st_mtime_ns for file in folder.glob("multirun/*/*/outcome.json")}


def answered(run: Path) -> set[str]:
    """The prompts that a run was measured on."""
    samples = (run / "sft" / "samples.jsonl").read_text().splitlines()
    assert samples
    return {json.loads(line)["id"] for line in samples}


def prompts(split: str) -> set[str]:
    """The prompts of a split."""
    from alignlab.data import view

    return set(view(config(*SMALL).dataset, "prompts", split)["id"])


def test_a_search_that_is_killed_goes_on_and_ends_with_its_ranking(tmp_path):
    command = [sys.executable, "-m", "alignlab", *SEARCH, *LESS, RANGE, "-m"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        until = time.monotonic() + 400
        while len(ended(tmp_path)) < 2 and time.monotonic() < until and running.poll() is None:
            time.sleep(0.2)
        time.sleep(1.0)  # in the middle of the third
        os.kill(running.pid, signal.SIGKILL)
    before = ended(tmp_path)
    assert 2 <= len(before) < 4
    done = alignlab(*SEARCH, *LESS, RANGE, "-m", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{len(before)} finished already" in done.stderr
    after = ended(tmp_path)
    assert {number: after[number] for number in before} == before
    assert sorted(after) == ["0", "1", "2", "3"]
    (folder,) = (tmp_path / "multirun").iterdir()
    found = json.loads((folder / "ranking.json").read_text())
    values = [place["value"] for place in found["places"]]
    assert values == sorted(values)
    assert len(values) == 4
    best = found["places"][0]["runs"][0]
    assert f"experiment={folder}/{best}/config.yaml evaluation.split=test" in done.stdout
    assert answered(folder / str(best)) <= prompts("validation")
    assert done.stdout.splitlines()[-2:] == [str(folder / "sweep.html"), str(folder / "sweep.md")]
    again = alignlab(f"experiment={folder}/{best}/config.yaml", "evaluation.split=test", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert answered(tmp_path / "outputs" / "latest") <= prompts("test")
    plan = json.loads((tmp_path / "outputs" / "latest" / "plan.json").read_text())
    assert [stage["action"] for stage in plan] == ["reused"]


def test_two_jobs_that_need_the_same_stage_build_it_once(tmp_path, monkeypatch):
    """Each of two DPO runs needs the same SFT; side by side, one trains it and the other waits."""
    monkeypatch.setenv("ALIGNLAB_MULTIRUN", str(tmp_path / "multirun"))
    runs = ["method=dpo", "method.max_steps=2", "stages.sft.max_steps=7", "method.beta=0.1,0.3", "-m"]
    both = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=4321"]
    done = alignlab(*SMALL, "evaluation=none", *runs, *both, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "multirun").iterdir()
    made = [json.loads((folder / number / "sft" / "provenance.json").read_text()) for number in ("0", "1")]
    assert made[0] == made[1]
    assert Counter(line.split(" in ")[0] for line in done.stderr.splitlines())["sft: 7 steps"] == 2  # begun and ended
    one, other = (folder / number / "sft" / "model" / "model.safetensors" for number in ("0", "1"))
    assert one.samefile(other)


def test_runs_are_handed_to_submitit(tmp_path):
    done = alignlab(*QUICK, "seed=100,101", "hydra/launcher=submitit_local", "-m", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "multirun").iterdir()
    assert [json.loads((folder / number / "outcome.json").read_text())["state"] for number in ("0", "1")] == [
        "finished", "finished",
    ]  # fmt: skip
    assert "2 runs, seeds 100, 101" in done.stdout


def test_a_run_that_fails_is_told_and_tried_again_and_the_others_are_shown(tmp_path):
    runs = [*QUICK, "method.policy=base,no/such/place", "-m"]
    done = alignlab(*runs, folder=tmp_path)
    assert done.returncode == 2, done.stderr  # found before any run
    rates = [*QUICK, "method.learning_rate=1e-4,1e30", "-m"]  # which makes the loss no number
    done = alignlab(*rates, folder=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "run 1: " in done.stderr
    assert "1 without a result; the same command runs them again" in done.stderr
    assert "run 1 (method.learning_rate=1e+30): failed. " in done.stdout


def test_a_grid_that_is_asked_to_stop_starts_no_other_run_and_goes_on(place):
    """The second of three runs saves its step; the third is not begun; the exit code says: again."""
    from running import PPO, WORDS, start, tiny, wait_for

    grid = tiny(*PPO, WORDS, "method.total_episodes=160", "seed=1,2,3", "-m")
    process = start(*grid, folder=place)
    wait_for(lambda: len(list((place / "multirun").glob("*/1/ppo"))) == 1)
    curves = (place / "cache" / "stages").glob
    wait_for(lambda: any(path.stat().st_size for path in curves("ppo-*.partial/metrics.jsonl")))
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 75
    said = (place / "log").read_text()
    assert said.splitlines()[-1].startswith("stopped: by SIGTERM; the same command resumes")
    assert "Error executing job" not in said
    assert sorted(ended(place)) == ["0"]
    assert not list((place / "multirun").glob("*/2/ppo"))
    done = alignlab(*grid, folder=place)
    assert done.returncode == 0, done.stderr
    (plan,) = (place / "multirun").glob("*/1/plan.txt")
    assert "resumes from its last checkpoint" in plan.read_text()
    assert sorted(ended(place)) == ["0", "1", "2"]
