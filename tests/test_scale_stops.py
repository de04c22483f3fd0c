"""Runs in several processes that fail, are killed or are asked to stop: what is told, and how they go on."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from command import alignlab
from running import PPO, SFT, WORDS, children, gone, marks, start, tiny, wait_for, workers_of
from several import job, learn

pytestmark = pytest.mark.scale


def test_a_worker_that_fails_ends_all_and_its_error_is_told(place):
    """The reward raises on one process's share only; the other waits for it in vain."""
    begun = time.monotonic()
    process = start(*tiny(*PPO, "hardware=ddp", "reward.function=failing:second"), folder=place)
    seen = set()
    while process.poll() is None:
        seen |= set(children(process.pid))
        assert time.monotonic() - begun < 280
        time.sleep(0.1)
    assert process.returncode == 1
    said = (place / "log").read_text()
    assert said.splitlines()[-1].startswith("reward function: raised ValueError: not on process 1 (")
    assert "Traceback" not in said
    assert "Connection closed" not in said
    assert gone(sorted(seen), 1)


def test_a_worker_that_is_killed_ends_all_and_the_command_goes_on(place):
    stage = tiny(*SFT, "method.max_steps=60", "method.num_train_epochs=20", "method.save_steps=5", "hardware=zero3")
    process = start(*stage, folder=place)
    wait_for(lambda: marks(place, "sft"))
    below = children(process.pid)
    os.kill(workers_of(process.pid)[1], signal.SIGKILL)
    assert process.wait(30) == 1
    assert gone(below, 1)
    said = (place / "log").read_text()
    assert "process 1: was killed" in said
    assert "check the system's log for the OOM killer" in said
    done = alignlab(*stage, folder=place)
    assert done.returncode == 0, done.stderr
    assert "resumes from its last checkpoint" in done.stdout


def test_workers_that_still_import_torch_die_with_the_command(place):
    process = start(*tiny(*SFT, "hardware=zero3", "hardware.processes=2"), folder=place)
    wait_for(lambda: len(workers_of(process.pid)) == 2)
    below = children(process.pid)
    process.kill()
    process.wait()
    assert gone(below, 1)


STEPS = 60
SETTINGS = {
    "lora": [*SFT, f"method.max_steps={STEPS}", "method.num_train_epochs=20", "model/adapter=lora"],
    "ppo": [*PPO, WORDS, f"method.total_episodes={STEPS * 4}"],
    "ppo-lora": [*PPO, WORDS, f"method.total_episodes={STEPS * 4}", "model/adapter=lora"],
}


@pytest.mark.parametrize("name", SETTINGS)
def test_sigterm_saves_and_says_again_and_another_number_of_processes_goes_on(place, name):
    """Nobody asked for checkpoints: the one that is there was written for the scheduler's sake."""
    settings, steps = SETTINGS[name], STEPS
    method = settings[0].removeprefix("method=")
    stage = tiny(*settings, "hardware=zero3")
    process = start(*stage, folder=place)
    curves = (place / "cache" / "stages").glob
    wait_for(lambda: any(path.stat().st_size for path in curves(f"{method}-*.partial/metrics.jsonl")))
    below = children(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 75
    assert gone(below, 1)
    assert (place / "log").read_text().splitlines()[-1].startswith("stopped: by SIGTERM; the same command resumes")
    (mark,) = marks(place, method)
    assert json.loads(mark.read_text())["processes"] == 2
    stopped = int(mark.parent.name.rpartition("-")[2])
    assert 0 < stopped < steps
    if name.endswith("lora"):
        assert not frozen_weights(mark.parent)
    done = alignlab(*stage, "hardware.processes=1", folder=place)
    assert done.returncode == 0, done.stderr
    assert f"{method}: {steps} steps, from {stopped}" in done.stderr
    alone = job(place / "rows.jsonl", place / "alone", "single", *settings)
    learn(alone)
    assert farthest(place / "outputs/latest" / method, alone.folder) < 1e-4


def frozen_weights(checkpoint: Path) -> set[str]:
    """Return the names of the weights in DeepSpeed's checkpoint that do not learn."""
    import torch

    states = [torch.load(path, weights_only=False) for path in checkpoint.glob("global_step*/*model_states.pt")]
    assert states
    return {weight for state in states for weight in state["frozen_param_fragments"] or ()}


def test_a_step_that_takes_long_is_ended_before_the_run_stops(place):
    """The launcher would give 30 seconds; a checkpoint of a large model takes longer."""
    stage = tiny(*PPO, "hardware=ddp", "reward.function=failing:slow", "method.total_episodes=80")
    process = start(*stage, folder=place)
    wait_for(lambda: (place / "slow").exists())
    process.send_signal(signal.SIGTERM)
    assert process.wait(90) == 75
    assert len(marks(place, "ppo")) == 1


def farthest(*stages: Path) -> float:
    """How far the weights of two finished stages are apart."""
    from safetensors.torch import load_file

    first, second = (load_file(stage / "model" / "model.safetensors") for stage in stages)
    return max((first[name] - second[name]).abs().max().item() for name in first)
