"""PPO beside trl 1.12.0's PPOTrainer: episodes a second, peak memory, and where the time goes.

    make bench-ppo

Both do the same work in one run: the same weights, prompts, reward model and settings; 32 real HH-RLHF prompts of at
most 128 tokens, 48 new tokens, four epochs of one minibatch. Each side is a process of its own, and they take turns,
so that what else the machine does falls on both; a ratio is taken within a round. The first update warms up.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from material import material
from sides import Asked, Told

HERE = Path(__file__).parent
THEIRS = HERE.parent.parent / ".venv-trl" / "bin" / "python"
ROUNDS = 3
SIDES = ("trl", "separate", "shared")
TITLES = {
    "trl": "trl 1.12.0",
    "separate": "alignlab, `value=separate`",
    "shared": "alignlab, `value=shared`",
    "separate, torch": "alignlab, `value=separate`, `matmul=torch`",
    "shared, torch": "alignlab, `value=shared`, `matmul=torch`",
}
TARGETS = {"separate": 1.4, "shared": 2.5}  # times trl's episodes a second, at least
PARTS = ("rollouts", "reward", "policy, value and reference", "update")


class Speed(NamedTuple):
    """One side in one round: episodes a second, peak memory in bytes, and seconds an update takes by part."""

    rate: float
    peak: int
    parts: dict[str, float]


def speed(told: Told) -> Speed:
    """What a run's marks say of its updates after the first; what is in no part of trl's is its update."""
    first, last = told.marks[0], told.marks[-1]
    updates = len(told.marks) - 1
    each = (last["at"] - first["at"]) / updates
    parts = {name: (last.get(name, 0.0) - first.get(name, 0.0)) / updates for name in PARTS[:-1]}
    return Speed(told.episodes / each, told.peak, parts | {"update": each - sum(parts.values())})


def run(side: str, asked: Asked) -> Told:
    """Run one side as a process of its own."""
    python, script = (THEIRS, "theirs.py") if side == "trl" else (Path(sys.executable), "ours.py")
    # A thread that waits sleeps: on a machine that does other work, too, one that spins starves the one it waits for.
    settings = {"OMP_NUM_THREADS": str(asked.threads), "OMP_WAIT_POLICY": "passive"}
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "asked.json").write_text(json.dumps(asked._asdict()), encoding="utf-8")
        done = subprocess.run(
            [python, HERE / script, Path(name) / "asked.json"],
            cwd=name, env=os.environ | settings, capture_output=True, text=True,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{side}: {done.stderr[-2000:]}")
    return Told(**json.loads(done.stdout.splitlines()[-1]))


def rounds(asked: Asked, count: int) -> dict[str, list[Speed]]:
    """Let the sides take turns."""
    found: dict[str, list[Speed]] = {side: [] for side in TITLES}
    for number in range(count):
        for side in TITLES:
            value, _, products = side.partition(", ")
            settings = asked._replace(value=value if side != "trl" else "separate", matmul=products or "auto")
            found[side].append(speed(run(side, settings)))
            print(f"round {number + 1}: {side} {found[side][-1].rate:.2f} episodes a second", flush=True)
    return found


def table(found: dict[str, list[Speed]]) -> Iterator[str]:
    """A row a side, the targets, and where the time goes."""
    yield "| | episodes a second | times trl's, by round | peak memory |"
    yield "|---|---|---|---|"
    for side, runs in found.items():
        times = ", ".join(f"{ratio:.2f}" for ratio in ratios(found, side)) if side != "trl" else ""
        yield f"| {TITLES[side]} | {spread([one.rate for one in runs])} | {times} | {memory(runs) / 1e6:.0f} MB |"
    yield ""
    for side, least in TARGETS.items():
        middle = statistics.median(ratios(found, side))
        met = "met" if middle >= least else "**not met**"
        yield f"- {met}: {TITLES[side]} at least {least} times trl's speed (median {middle:.2f})"
    lower = all(memory(found[side]) < memory(found["trl"]) for side in TARGETS)
    yield f"- {'met' if lower else '**not met**'}: peak memory lower than trl's in both"
    yield ""
    yield f"| seconds an update | {' | '.join(PARTS)} | in all |"
    yield "|---|" + "---|" * (len(PARTS) + 1)
    for side, runs in found.items():
        means = [statistics.median(one.parts[part] for one in runs) for part in PARTS]
        whole = sum(means)
        cells = " | ".join(f"{mean:.2f} ({mean / whole:.0%})" for mean in means)
        yield f"| {TITLES[side]} | {cells} | {whole:.2f} |"


def ratios(found: dict[str, list[Speed]], side: str) -> list[float]:
    """How many times trl's speed a side has, round by round."""
    return [ours.rate / theirs.rate for ours, theirs in zip(found[side], found["trl"], strict=True)]


def memory(runs: list[Speed]) -> int:
    """The most memory that a side has held in any round."""
    return max(one.peak for one in runs)


def spread(rates: list[float]) -> str:
    """The median, and the least and the largest."""
    return f"{statistics.median(rates):.2f} ({min(rates):.2f} to {max(rates):.2f})"


def asked(folder: Path) -> Asked:
    """The work of the comparison."""
    made = material(folder)
    return Asked(str(made.policy), str(made.judge), str(made.prompts), str(made.rows))


def versions() -> Iterator[str]:
    """What trl's side runs on, in a line."""
    names = ("trl", "torch", "transformers", "accelerate")
    script = f"from importlib.metadata import version; print(', '.join(f'{{n}} {{version(n)}}' for n in {names}))"
    yield subprocess.run([THEIRS, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def measure(count: int = ROUNDS) -> Iterator[str]:
    """The whole comparison as lines of Markdown."""
    with tempfile.TemporaryDirectory() as name:
        found = rounds(asked(Path(name)), count)
    yield "`make bench-ppo`: a Llama of 5M parameters (value function and reward model of the same shape), 32 HH-RLHF"
    yield "prompts of at most 128 tokens, 48 new tokens, four epochs of one minibatch, two threads; the sides take"
    yield f"turns, {count} rounds. trl's side: {', '.join(versions())}."
    yield ""
    yield from table(found)


def main() -> None:
    """Measure and print."""
    if not THEIRS.exists():
        raise SystemExit(f"{THEIRS}: is not there; make bench-ppo installs it")
    given: Any = sys.argv[1:]
    for line in measure(int(given[0]) if given else ROUNDS):
        print(line, flush=True)


if __name__ == "__main__":
    main()
