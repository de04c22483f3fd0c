"""Put commands through faults: a kill, a full disk, a read-only disk, a flipped byte.

New methods and tasks join `COMMANDS`. `benchmarks/kills_everywhere.py` kills more of them, at random moments.

After every fault the same command has to end as an undisturbed run does, by the hash of what it made.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from command import ROOT
from damage import flip
from running import PPO, WORDS, children, gone, tiny
from several import write_rows

STEPS = ("method.batch_size=8", "method.max_steps=6", "method.save_steps=2")
ROLLOUTS = (*PPO, WORDS, "method.total_episodes=32", "method.save_steps=1")
COMMANDS = {
    "sft": tiny("method=sft", *STEPS),
    "rm": tiny("method=rm", *STEPS),
    "dpo": tiny("method=dpo", *STEPS),
    "kto": tiny("method=kto", *STEPS, "dataset.label_pairs=true"),
    "cost": tiny("method=cost", *STEPS, "dataset.validation=0.15", "dataset.label_pairs=true"),
    "ppo": tiny(*ROLLOUTS),
    "sweep": tiny("method=sft", *STEPS, "method.learning_rate=1e-3,2e-3", "-m"),
    "prepare": ["task=prepare", "dataset=file", "dataset.path=rows.jsonl"],
}
# Methods and tasks whose kills and repetitions have tests of their own, or which write one page from what is there.
ELSEWHERE = {
    "cai",
    "cai_ppo",
    "cai_rm",
    "cai_sft",
    "grpo",
    "train",
    "chat",
    "compare",
    "dashboard",
    "evaluate",
    "explain",
    "gate",
    "generate",
    "key",
    "loop",
    "preferences",
    "promote",
    "report",
    "rollback",
    "serve",
    "soup",
}
MADE = (
    "*.safetensors", "demonstrations.jsonl", "pairs.jsonl", "prompts.jsonl", "samples.jsonl", "*records.jsonl",
    "explanations.json",
)  # fmt: skip


class Ended(NamedTuple):
    """How a command ended: its exit code, what it printed, and the hash of what it made."""

    code: int
    printed: str
    made: str


class Place:
    """A folder with rows, a cache, temporary files and one command."""

    def __init__(self, folder: Path, command: list[str]) -> None:
        self.folder, self.command = folder, command
        self.temporary = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
        write_rows(folder / "rows.jsonl")

    def start(self, **environment: str) -> "subprocess.Popen[bytes]":
        """Start the command; its output goes into the file `log`."""
        paths = f"{Path(__file__).parent}:{ROOT}:{os.environ.get('PYTHONPATH', '')}"
        own = {"ALIGNLAB_CACHE": str(self.folder / "cache"), "TMPDIR": str(self.temporary), "PYTHONPATH": paths}
        with (self.folder / "log").open("w") as stream:
            arguments = [sys.executable, "-m", "alignlab", *self.command]
            return subprocess.Popen(
                arguments, cwd=self.folder, env=os.environ | own | environment, stdout=stream, stderr=subprocess.STDOUT
            )

    def run(self, **environment: str) -> Ended:
        """Run the command to its end."""
        code = self.start(**environment).wait()
        return Ended(code, (self.folder / "log").read_text(), self.made())

    def made(self) -> str:
        """Hash what the runs made, in the order of their folders' names less the time."""
        runs = [*self.folder.glob("outputs/2*/*"), *self.folder.glob("multirun/*")]
        last = max(runs, key=lambda run: run.stat().st_mtime, default=self.folder / "outputs")
        files = sorted(path for pattern in MADE for path in last.rglob(pattern))
        return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest() if files else "nothing"

    def close(self) -> list[str]:
        """Remove the temporary folder; return the names that were left in it."""
        left = [path.name for path in self.temporary.iterdir()]
        shutil.rmtree(self.temporary)
        return left


def kill(place: Place, moment: float) -> str:
    """Kill the command after some seconds; return what was wrong afterwards."""
    process = place.start()
    time.sleep(moment)
    below = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return "" if gone(below, 5) else "something was still running after 5 s"


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """Mount a small disk; yields a function that mounts it again with other options. Raises OSError without rights."""
    folder.mkdir(parents=True, exist_ok=True)

    def mount(options: str) -> None:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            raise OSError(done.stderr.decode())

    mount(f"size={size}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_disk(place: Place, which: str, size: str) -> Ended:
    """Run with a cache or with outputs on a disk of `size`; then make the disk larger."""
    with disk(place.folder / which, size) as mount:
        ended = place.run()
        mount("remount,size=200m")
        again = place.run()
    return ended if again.code == 0 else again


def forbid_writing(place: Place, which: str) -> Ended:
    """Run with a cache or with outputs on a disk that is read-only."""
    with disk(place.folder / which, "1m") as mount:
        mount("remount,ro")
        return place.run()


def flip_bytes(place: Place) -> Ended:
    """Flip a bit in the largest file of every finished folder of the cache, and run again."""
    for manifest in (place.folder / "cache").rglob("manifest.json"):
        files = [path for path in manifest.parent.rglob("*") if path.is_file() and path != manifest]
        flip(max(files, key=lambda path: path.stat().st_size))
    return place.run()
