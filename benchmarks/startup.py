"""Start of commands, this checkout beside another one: CPU seconds of `--help`, of mistakes and of plans, alternating.

    python benchmarks/startup.py [OTHER_CHECKOUT]     # such as a git worktree of an earlier commit

The cache is that of the user: run `make demo` first, so that the plans are those of a warm machine.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent.parent
ROUNDS = 3
COMMANDS = (
    ("--help",),
    ("method=dppo",),
    ("method.lr=1",),
    ("dry_run=true",),
    ("method=cai", "dry_run=true"),
    ("task=prepare", "dry_run=true"),
)


def seconds(checkout: Path, command: tuple[str, ...], folder: str) -> float:
    """Return the CPU seconds of a command."""
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "alignlab", *command], cwd=folder, env=environment, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(other: str | None) -> Iterator[str]:
    """Yield the table; `other` is the folder of the other checkout. The first round warms up and is not counted."""
    sides = [HERE, *([Path(other)] if other else [])]
    yield "| command | CPU seconds (spread) |" + " the other checkout |" * (len(sides) > 1)
    yield "|---|---|" + "---|" * (len(sides) > 1)
    with tempfile.TemporaryDirectory() as folder:
        for command in COMMANDS:
            rounds = [[seconds(side, command, folder) for side in sides] for _ in range(ROUNDS + 1)][1:]
            cells = [
                f"{statistics.median(tries):.2f} ({min(tries):.2f} to {max(tries):.2f})"
                for tries in zip(*rounds, strict=True)
            ]
            yield f"| `{' '.join(command)}` | {' | '.join(cells)} |"


if __name__ == "__main__":
    print("\n".join(measure(next(iter(sys.argv[1:]), None))))
