"""Whole runs in several processes, by the real command, whoever starts them."""

import json
import socket
import subprocess
import sys
import time
from collections import Counter

import pytest
from command import alignlab
from running import SFT, listening, result, start, tiny

pytestmark = pytest.mark.scale


def test_ppo_and_dpo_under_zero3_as_a_user_types_them(tmp_path):
    """The whole chain in two processes, on the small world; DPO begins from the same SFT stage."""
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
    done = alignlab(
        "method=dpo", "hardware=zero3", "model=pocket_small", "dataset=pocket_small", "evaluation=none",
        "tracking=jsonl", "seed=77", "method.max_steps=4", short[0], folder=tmp_path, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stages = json.loads((tmp_path / "outputs/latest/plan.json").read_text())
    assert [(stage["stage"], stage["action"]) for stage in stages] == [("sft", "reused"), ("dpo", "ran")]


def test_constitutional_ai_under_zero3(tmp_path):
    short = ["method.prompts=8", "stages.cai_sft.prompts=8", "method.max_steps=3", "stages.cai_sft.max_steps=3"]
    done = alignlab(
        "method=cai", "hardware=zero3", "model=pocket_small", "dataset=pocket_small", "evaluation=none",
        "tracking=jsonl", "seed=77", *short, folder=tmp_path, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stages = json.loads((tmp_path / "outputs/latest/plan.json").read_text())
    assert [stage["action"] for stage in stages] == ["ran", "ran"]


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
    assert "3 devices, 9 rows per step" in done.stdout
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


@pytest.mark.parametrize("hardware", ["ddp", "zero3"])
def test_nothing_listens_beyond_this_machine(place, hardware):
    """The whole tree of processes is looked at while it starts and while it trains; workers connect at 127.0.0.1."""
    seen: Counter[tuple[str, str]] = Counter()
    command = tiny(*SFT, "method.max_steps=40", f"hardware={hardware}", "hardware.processes=2")
    running = start(*command, folder=place)
    while running.poll() is None:
        trains = any(file.stat().st_size for file in (place / "cache/stages").glob("sft-*.partial/metrics.jsonl"))
        seen.update(("training" if trains else "start-up", address) for address in listening(running.pid))
        time.sleep(0.1)
    assert running.returncode == 0, (place / "log").read_text()
    print(dict(seen))
    assert set(seen) == {("start-up", "0100007F"), ("training", "0100007F")}
