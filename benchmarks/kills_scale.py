"""Kill one worker, the command, or all processes at random moments, and resume by the same command.

Five methods, one process and two under ZeRO-3. After each kill nothing may be left running; the command then has to
finish, and one process has to end with the bits of a run that was left alone.
"""

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
from typing import NamedTuple

COMMON = (
    "model=pocket_small", "dataset=pocket_small", "evaluation=none", "tracking=jsonl", "hardware.device=cpu",
    "hardware.threads=1", "method.save_steps=2",
)  # fmt: skip
SHORT = ("method.max_steps=24", "method.num_train_epochs=8")
METHODS = {
    "sft": ("method=sft", *SHORT),
    "rm": ("method=rm", *SHORT),
    "dpo": ("method=dpo", *SHORT),
    "ppo": ("method=ppo", "method.total_episodes=960", "method.gates.before=warn"),
    "cai": ("method=cai", *SHORT, "method.prompts=24", "stages.cai_sft.prompts=24"),
}
HARDWARE = ("single", "zero3")
VICTIMS = {"single": ("the command",), "zero3": ("a worker", "the command", "everything")}
KILLS = 20
PATIENCE = 30.0  # seconds that the rest may take to end


class Kill(NamedTuple):
    """A kill: its target, the seconds after the stage's folder appeared, and the outcome."""

    method: str
    hardware: str
    victim: str
    moment: float
    ended: float  # seconds until nothing was left; infinite where something was
    finished: bool
    same: bool | None  # whether the bits are those of an undisturbed run; None where nobody asks


def kills_scale() -> Iterator[str]:
    """Kill twenty runs once each."""
    with tempfile.TemporaryDirectory() as name:
        found = list(all_kills(Path(name)))
    yield f"`python -m alignlab method=… hardware=… {' '.join(COMMON)}`, killed (SIGKILL) once, and given again:"
    yield ""
    yield "| method | hardware | killed | after | nothing left after | the same command | weights |"
    yield "|---|---|---|---|---|---|---|"
    for one in found:
        end = "finished" if one.finished else "**did not finish**"
        same = {True: "the same", False: "**others**", None: ""}[one.same]
        times = f"{one.moment:.1f} s | {one.ended:.1f} s"
        yield f"| {one.method} | {one.hardware} | {one.victim} | {times} | {end} | {same} |"
    good = sum(one.ended <= PATIENCE and one.finished and one.same is not False for one in found)
    yield ""
    said = f"{good} of {KILLS} kills left nothing behind and were made good"
    yield f"- {'met' if good == KILLS else '**not met**'}: {said}"


def all_kills(folder: Path) -> Iterator[Kill]:
    """Draw kills at random, such that every method is killed under both kinds of hardware."""
    random = Random(0)
    undisturbed: dict[tuple[str, str], tuple[str, float]] = {}
    pairs = [(method, hardware) for method in METHODS for hardware in HARDWARE]
    for number in range(KILLS):
        method, hardware = pairs[number % len(pairs)]
        if (method, hardware) not in undisturbed:
            finish(folder, method, hardware)  # makes the base model and the earlier stages
            undisturbed[method, hardware] = timed(folder, method, hardware)
        bits, seconds = undisturbed[method, hardware]
        victim = random.choice(VICTIMS[hardware])
        moment = random.uniform(0, seconds)
        ended = kill(folder, method, hardware, victim, moment)
        end = finish(folder, method, hardware)
        one = Kill(method, hardware, victim, moment, ended, bool(end), end == bits if hardware == "single" else None)
        print(one, flush=True)
        yield one


def start(folder: Path, method: str, hardware: str) -> "subprocess.Popen[bytes]":
    """Start a command; its output is written into the folder."""
    environment = os.environ | {"ALIGNLAB_CACHE": str(folder / "cache")}
    with (folder / "said").open("w") as said:
        command = [sys.executable, "-m", "alignlab", *METHODS[method], f"hardware={hardware}", *COMMON]
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )


def finish(folder: Path, method: str, hardware: str) -> str:
    """Run a command to its end and return the hash of the weights; None where it fails."""
    if start(folder, method, hardware).wait():
        print((folder / "said").read_text(encoding="utf-8"), flush=True)
        return ""
    (model,) = stages(folder).glob(f"{method}-*/model/model.safetensors")
    return hashlib.sha256(model.read_bytes()).hexdigest()


def timed(folder: Path, method: str, hardware: str) -> tuple[str, float]:
    """Run the last stage alone to its end; gives the hash of the weights, and the seconds since its folder appeared."""
    forget(folder, method)
    process = start(folder, method, hardware)
    begun = appears(folder, method)
    process.wait()
    seconds = time.monotonic() - begun
    return finish(folder, method, hardware), seconds


def kill(folder: Path, method: str, hardware: str, victim: str, moment: float) -> float:
    """Run the last stage, and kill so many seconds after its folder appeared; gives the seconds until all had ended."""
    forget(folder, method)
    process = start(folder, method, hardware)
    appears(folder, method)
    time.sleep(moment)
    every = running(folder)
    workers = [one for one in every if "spawn_main" in every[one]]
    chosen = {"the command": [process.pid], "everything": [*every], "a worker": workers[-1:] or [process.pid]}[victim]
    for one in chosen:
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue
    struck = time.monotonic()
    while running(folder):
        if time.monotonic() - struck > PATIENCE:
            return float("inf")
        process.poll()
        time.sleep(0.05)
    return time.monotonic() - struck


def running(folder: Path) -> dict[int, str]:
    """Return the ids and command lines of all processes that use this folder's cache."""
    mark, found = f"ALIGNLAB_CACHE={folder / 'cache'}", {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_text(encoding="utf-8", errors="replace").split("\0"):
                found[int(process.name)] = (process / "cmdline").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended meanwhile, or is another user's
            continue
    return found


def appears(folder: Path, method: str) -> float:
    """Wait for the stage's folder and return the time."""
    while not any(stages(folder).glob(f"{method}-*.partial")):
        time.sleep(0.02)
    return time.monotonic()


def stages(folder: Path) -> Path:
    """Return the folder of finished and partial stages."""
    return folder / "cache" / "stages"


def forget(folder: Path, method: str) -> None:
    """Remove the last stage."""
    for path in stages(folder).glob(f"{method}-*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
