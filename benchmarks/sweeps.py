"""Measure sweeps: a search that is killed and resumed, and two workers compared with one."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SMALL = ("model=pocket_small", "dataset=pocket_small", "tracking=jsonl")
SEARCH = (
    "sweep=ppo_hparams", *SMALL, "dataset.validation=0.2", "method.total_episodes=768", "sweep.prune_steps=2",
)  # fmt: skip
KILLED_AFTER = 5  # runs that have ended
RUNS = ("method=dpo", *SMALL, "evaluation=quick", "seed=100,101,102,103,104,105", "-m")
WORKERS = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
BOUND = 0.65
ROUNDS = 3


def sweeps() -> Iterator[str]:
    """Run a search that is killed in the middle and resumed."""
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        yield from searched(Path(name))


def sweeps_joblib() -> Iterator[str]:
    """Run the same sweep with one worker and with two."""
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        yield from side_by_side(Path(name))


def prepare(folder: Path) -> None:
    """Make the base model, and load the libraries' files into the page cache."""
    command(folder, *SMALL, "method=sft", "evaluation=none", "method.max_steps=1")


def searched(folder: Path) -> Iterator[str]:
    """Run a search, kill it, finish it, and run the best settings again on the test prompts."""
    yield f"`python -m alignlab {' '.join(SEARCH)}`, killed (SIGKILL) in its sixth run and given again:"
    yield ""
    with start(folder, *SEARCH) as running:
        while len(ended(folder)) < KILLED_AFTER and running.poll() is None:
            time.sleep(0.2)
        time.sleep(10)
        os.kill(running.pid, signal.SIGKILL)
    before = ended(folder)
    command(folder, *SEARCH)
    after = ended(folder)
    (place,) = folder.glob("multirun/ppo_hparams-*")
    yield from (line.replace(str(folder), "…") for line in (place / "sweep.md").read_text().splitlines())
    yield ""
    found = json.loads((place / "ranking.json").read_text())
    shutil.copyfile(place / "sweep.png", Path(__file__).parent / "sweeps.png")
    yield "![The runs with their intervals, and what each setting did](sweeps.png)"
    yield ""
    again = command(folder, *found["command"].split()[3:])
    yield f"The best again, on the {again['gold/score']['n']} test prompts; the change is against SFT, paired:"
    yield ""
    yield "| measure | value | change |"
    yield "|---|--:|--:|"
    for measure in ("reward/held_out", "reward/mean", "gold/score", "gold/harmful_compliance"):
        row = again[measure]
        yield f"| {measure} | {told(row)} | {told(row['difference']['previous'])} |"
    yield ""
    same = all(after[number] == before[number] for number in before)
    yield verdict(same and len(before) >= KILLED_AFTER, f"{len(before)} runs had ended; none of them was run again")
    yield verdict(len(after) == 12, f"{len(after)} of 12 runs in the end, {len(found['places'])} with a value")
    pages = all((place / name).exists() for name in ("sweep.md", "sweep.html", "sweep.png", "sweep.svg"))
    yield verdict(pages, "table, page and drawing")


def side_by_side(folder: Path) -> Iterator[str]:
    """Run the same six runs with one and with two workers, alternately, each from a cache with only the base."""
    yield f"`python -m alignlab {' '.join(RUNS)}`, one thread a run, without and with `{' '.join(WORKERS)}`; each from"
    yield f"a cache with nothing but the base model, in turns, {ROUNDS} rounds:"
    yield ""
    yield "| round | one after the other | two workers | share |"
    yield "|---|--:|--:|--:|"
    shares = []
    for number in range(ROUNDS):
        one, two = (until_the_table(folder, f"{number}-{len(side)}", side) for side in (RUNS, (*RUNS, *WORKERS)))
        shares.append(two / one)
        yield f"| {number + 1} | {one:.0f} s | {two:.0f} s | {two / one:.2f} |"
    yield ""
    share = statistics.median(shares)
    yield verdict(share <= BOUND, f"two workers take {share:.2f} of one after the other in the median ({BOUND})")


def until_the_table(folder: Path, name: str, arguments: Sequence[str]) -> float:
    """Return the seconds of a command in a separate folder."""
    place = folder / name
    shutil.copytree(folder / "cache" / "pocket", place / "cache" / "pocket")
    started = time.monotonic()
    if start(place, *arguments).wait():
        raise SystemExit((place / "said").read_text()[-3000:])
    seconds = time.monotonic() - started
    print(f"{' '.join(arguments)}: {seconds:.0f} s", flush=True)
    return seconds


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    """Start a command in the folder, with a cache and one thread of its own; what it says is in `said`."""
    environment = os.environ | {"ALIGNLAB_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    said = (folder / "said").open("a")
    ran = [sys.executable, "-m", "alignlab", *arguments]
    return subprocess.Popen(ran, cwd=folder, env=environment, stdout=said, stderr=said, text=True)


def command(folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Run a command to its end; gives the measurements of the last single run by name."""
    if start(folder, *arguments).wait():
        raise SystemExit((folder / "said").read_text()[-3000:])
    result = folder / "outputs" / "latest" / "result.json"
    rows = json.loads(result.read_text())["measurements"] if result.exists() else []
    return {row["name"]: row for row in rows}


def ended(folder: Path) -> dict[str, int]:
    """Return the finished runs of the search and their times."""
    return {file.parent.name: file.stat().st_mtime_ns for file in folder.glob("multirun/ppo_hparams-*/*/outcome.json")}


def told(row: dict[str, float]) -> str:
    """Return a value with its interval."""
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def verdict(met: bool, what: str) -> str:
    """Return a target and whether it is met."""
    return f"- {'met' if met else '**not met**'}: {what}"
