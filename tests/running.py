"""Commands that are started beside a test: their processes, what they leave, and how they end."""

import json
import subprocess
import sys
import time
from pathlib import Path

from several import TINY

WORDS = "reward.function=several:words"
PPO = [
    "method=ppo", "reward=function", "method.batch_size=8", "method.num_mini_batches=2", "method.num_ppo_epochs=1",
    "method.max_new_tokens=6", "method.gates.before=off", "method.gates.during=off",
]  # fmt: skip
SFT = ["method=sft", "method.batch_size=8"]


STARTED: "list[subprocess.Popen[bytes]]" = []


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


def listening(process: int) -> set[str]:
    """The addresses at which a command and all processes below it listen, in the kernel's hexadecimal form."""
    sockets = set()
    for one in [process, *children(process)]:
        try:
            sockets |= {str(link.readlink()) for link in Path(f"/proc/{one}/fd").iterdir()}
        except OSError:  # the process or the file is gone
            continue
    lines = [line.split() for kind in ("tcp", "tcp6") for line in Path(f"/proc/net/{kind}").read_text().splitlines()]
    return {line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets}
