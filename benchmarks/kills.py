"""Kill PPO at random moments, resume it by the same command, and compare the weights bit for bit."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

COMMAND = (
    "model=pocket_small", "dataset=pocket_small", "evaluation=none", "tracking=jsonl", "hardware.threads=1",
    "method.total_episodes=1920", "method.save_steps=2", "method.kl_target=4", "method.gates.before=warn",
)  # fmt: skip
KILLS = 10


def kills() -> Iterator[str]:
    """Kill ten runs once each, and compare with an uninterrupted run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        finish(folder)  # makes the base model and the earlier stages
        undisturbed, seconds = timed(folder)
        yield f"`python -m alignlab {' '.join(COMMAND)}`:"
        yield f"PPO takes {seconds:.0f} s, and saves every second of its 20 rollouts. Each row is a run that was"
        yield "killed (SIGKILL) so many seconds after PPO's folder had appeared, finished by the same command, and"
        yield "compared with a run that was left alone."
        yield ""
        yield "| killed after | last rollout that was saved | weights |"
        yield "|---|---|---|"
        random, same = Random(0), 0
        for _ in range(KILLS):
            moment = random.uniform(0, seconds)
            saved = kill(folder, moment)
            is_same = finish(folder) == undisturbed
            same += is_same
            yield f"| {moment:.1f} s | {saved} | {'the same' if is_same else '**others**'} |"
            print(f"{moment:.1f} s, {saved} rollouts saved, {is_same}", flush=True)
        yield ""
        yield f"- {'met' if same == KILLS else '**not met**'}: {KILLS} kills, {same} identical ends"


def start(folder: Path) -> "subprocess.Popen[bytes]":
    """Start the command; its output is written into the folder."""
    environment = os.environ | {"ALIGNLAB_CACHE": str(folder / "cache")}
    with (folder / "said").open("w") as said:
        command = [sys.executable, "-m", "alignlab", *COMMAND]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT)


def finish(folder: Path) -> str:
    """Run the command to its end and return the hash of the policy's weights."""
    if start(folder).wait():
        raise SystemExit((folder / "said").read_text(encoding="utf-8"))
    (model,) = stages(folder).glob("ppo-*/model/model.safetensors")
    return hashlib.sha256(model.read_bytes()).hexdigest()


def timed(folder: Path) -> tuple[str, float]:
    """Run PPO alone to its end; gives the hash of the weights, and the seconds since its folder appeared."""
    forget(folder)
    process = start(folder)
    begun = appears(folder)
    process.wait()
    seconds = time.monotonic() - begun
    return finish(folder), seconds


def kill(folder: Path, moment: float) -> int:
    """Run PPO alone, and kill it so many seconds after its folder has appeared; gives the rollouts that it saved."""
    forget(folder)
    process = start(folder)
    appears(folder)
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.wait()
    saved = [int(path.parent.name.rpartition("-")[2]) for path in stages(folder).glob("ppo-*/**/whole.json")]
    return max(saved, default=0) // STEPS


STEPS = 6  # optimizer steps a rollout: three passes in two minibatches


def appears(folder: Path) -> float:
    """Wait for PPO's folder and return the time."""
    while not any(stages(folder).glob("ppo-*.partial")):
        time.sleep(0.02)
    return time.monotonic()


def stages(folder: Path) -> Path:
    """Return the folder of finished and partial stages."""
    return folder / "cache" / "stages"


def forget(folder: Path) -> None:
    """Remove the PPO stage."""
    for path in stages(folder).glob("ppo-*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
