"""Whole runs in several processes, by the real command: what they leave, how they fail, and how they go on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import ROOT, alignlab
from several import TINY, job, learn, write_rows

pytestmark = pytest.mark.scale

WORDS = "reward.function=several:words"
PPO = [
    "method=ppo", "reward=function", "method.batch_size=8", "method.num_mini_batches=2", "method.num_ppo_epochs=1",
    "method.max_new_tokens=6", "method.gates.before=off", "method.gates.during=off",
]  # fmt: skip
SFT = ["method=sft", "method.batch_size=8"]


STARTED: "list[subprocess.Popen[bytes]]" = []


@pytest.fixture(autouse=True)
def imports(monkeypatch):
    """Let workers import what lies beside the tests; leave nothing running where a test fails."""
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    yield
    while STARTED:
        STARTED.pop().kill()  # its workers die with it


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with rows, and a cache of its own."""
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    write_rows(tmp_path / "rows.jsonl")
    return tmp_path


def tiny(*more: str) -> list[str]:
    return ["dataset=file", "dataset.path=rows.jsonl", *TINY, *more]


def start(*arguments: str, folder: Path, log: str = "log") -> "subprocess.Popen[bytes]":
    with (folder / log).open("w") as stream:
        command = [sys.executable, "-m", "alignlab", *arguments]
        STARTED.append(subprocess.Popen(command, cwd=folder, stdout=stream, stderr=subprocess.STDOUT))
        return STARTED[-1]


def children(process: int) -> list[int]:
    """Every process below one, by /proc."""
    below: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            below.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found, waiting = [], [process]
    while waiting:
        found += (own := below.get(waiting.pop(), []))
        waiting += own
    return found


def workers_of(process: int) -> list[int]:
    """The workers of a command, in the order of their numbers."""
    return sorted(one for one in children(process) if "spawn_main" in command_line(one))


def command_line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""


def gone(processes: list[int], seconds: float) -> bool:
    """Whether processes end within so many seconds."""
    end = time.monotonic() + seconds
    while any(Path(f"/proc/{one}").exists() and command_line(one) for one in processes):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def wait_for(found, seconds=280):
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.05)


def marks(folder: Path, method: str) -> list[Path]:
    """The checkpoints of a stage that is being trained, by their marks."""
    return sorted((folder / "cache" / "stages").glob(f"{method}-*.partial/checkpoints/*/whole.json"))


def result(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "outputs" / "latest" / "result.json").read_text())
    return found


def test_ppo_under_zero3_as_a_user_types_it(tmp_path):
    """The whole chain in two processes, on the small world."""
    short = [f"stages.{name}.max_steps=4" for name in ("sft", "rm")]
    done = alignlab(
        "method=ppo", "hardware=zero3", "model=pocket_small", "dataset=pocket_small", "evaluation=quick",
        "tracking=jsonl", "seed=77", "method.total_episodes=64", "method.batch_size=32",
        "method.gates.before=warn", *short,
        folder=tmp_path, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert result(tmp_path)["stage"] == "ppo"
    curves = [json.loads(line) for line in (tmp_path / "outputs/latest/ppo/metrics.jsonl").read_text().splitlines()]
    rollouts = [line for line in curves if "reward/mean" in line]
    assert len(rollouts) == 2
    assert rollouts[0]["policy/kl_exact"] == pytest.approx(0, abs=1e-4)
    assert rollouts[0]["policy/first_ratio"] == pytest.approx(1, abs=1e-3)
    assert len(list((tmp_path / "outputs").glob("2*/*"))) == 1


def test_constitutional_ai_under_zero3(tmp_path):
    short = ["method.prompts=8", "stages.cai_sft.prompts=8", "method.max_steps=3", "stages.cai_sft.max_steps=3"]
    done = alignlab(
        "method=cai", "hardware=zero3", "model=pocket_small", "dataset=pocket_small", "evaluation=none",
        "tracking=jsonl", "seed=77", *short, folder=tmp_path, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stages = json.loads((tmp_path / "outputs/latest/plan.json").read_text())
    assert [stage["action"] for stage in stages] == ["ran", "ran"]


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
    assert said.splitlines()[-1].startswith("reward function: raised ValueError: not on process 1 on the text")
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
    assert "perhaps by the system, for memory" in said
    done = alignlab(*stage, folder=place)
    assert done.returncode == 0, done.stderr
    assert "goes on where it stopped" in done.stdout


STEPS = 60
SETTINGS = {
    "lora": [*SFT, f"method.max_steps={STEPS}", "method.num_train_epochs=20", "model/adapter=lora"],
    "ppo": [*PPO, WORDS, f"method.total_episodes={STEPS * 4}"],
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
    assert (place / "log").read_text().splitlines()[-1].startswith("stopped: by SIGTERM; the same command goes on")
    (mark,) = marks(place, method)
    assert json.loads(mark.read_text())["processes"] == 2
    stopped = int(mark.parent.name.rpartition("-")[2])
    assert 0 < stopped < steps
    done = alignlab(*stage, "hardware.processes=1", folder=place)
    assert done.returncode == 0, done.stderr
    assert f"{method}: {steps} steps, from {stopped}" in done.stderr
    alone = job(place / "rows.jsonl", place / "alone", "single", *settings)
    learn(alone)
    assert farthest(place / "outputs/latest" / method, alone.folder) < 1e-4


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


LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--nproc-per-node=3", "-m"],
    "accelerate": [
        "accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_processes=3", "--num_machines=1",
        "--mixed_precision=no", "--dynamo_backend=no", "-m",
    ],
    "deepspeed": ["deepspeed.launcher.runner", "--num_gpus=3", "--no_local_rank", "--module"],
}  # fmt: skip


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_processes_that_a_launcher_started_train_together(place, launcher):
    """Hydra runs in the first of them alone: there is one folder. Left alone, two processes would be started."""
    command = [sys.executable, "-m", *LAUNCHERS[launcher], "alignlab"]
    stage = tiny("method=sft", "method.batch_size=9", "method.max_steps=3", "hardware=ddp")
    done = subprocess.run([*command, *stage], cwd=place, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("plan: sft") == 1
    assert "3 devices, 9 rows a step" in done.stdout
    assert len(list((place / "outputs").glob("2*/*"))) == 1
    assert result(place)["stage"] == "sft"


def test_two_machines_meet(place):
    """The same command twice, each with its number; machine 1 only trains."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stage = tiny(*SFT, "method.max_steps=3", "hardware=ddp", "hardware.processes=1", "hardware.nodes=2")
    both = [
        start(*stage, f"hardware.rank={rank}", f"hardware.rendezvous=127.0.0.1:{port}", folder=place, log=f"log{rank}")
        for rank in range(2)
    ]
    assert [process.wait(400) for process in both] == [0, 0], (place / "log0").read_text()
    assert "plan: sft" in (place / "log0").read_text()
    assert "plan: sft" not in (place / "log1").read_text()
    assert len(list((place / "outputs").glob("2*/*"))) == 1
