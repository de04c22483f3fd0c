"""Prepare generated rows by `task=prepare`, this checkout beside another one: rows per CPU second, alternating.

    python benchmarks/preparing.py ROWS [OTHER_CHECKOUT]     # such as a git worktree of an earlier commit

The rows are random words, every tenth the same as the one before. Each try starts from an empty cache. Both sides must
write the same rows, ledger and card. The last lines show how the cost of a row grows with rows and their length.
"""

import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

HERE = Path(__file__).parent.parent
ROUNDS = 3
WORDS = [f"word{number}" for number in range(5000)]


class Try(NamedTuple):
    """The CPU seconds of a try, its peak memory in bytes, and the hash of what it wrote."""

    seconds: float
    memory: int
    written: str


def write(path: Path, rows: int, length: int = 1) -> None:
    """Write rows of `length` times 30 random words; every tenth repeats the one before it."""
    random, row = Random(0), ""
    with path.open("w", encoding="utf-8") as stream:
        for number in range(rows):
            if number % 10 != 9:
                asked, answer = (" ".join(random.choices(WORDS, k=words * length)) for words in (10, 20))
                row = json.dumps({"prompt": f"Tell me {number}: {asked}?", "completion": answer}) + "\n"
            stream.write(row)


def prepare(checkout: Path, rows: Path) -> Try:
    """Prepare a file by a checkout's code, from an empty cache."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as name:
        environment = os.environ | {"PYTHONPATH": str(checkout), "ALIGNLAB_CACHE": f"{name}/cache"}
        command = [sys.executable, "-m", "alignlab", "task=prepare", "dataset=file", f"dataset.path={rows}"]
        subprocess.run(command, cwd=name, env=environment, check=True, capture_output=True)
        files = [
            file
            for pattern in ("cache/data/*/*.arrow", "cache/data/*/report.json", "outputs/*/*/card.json")
            for file in sorted(Path(name).glob(pattern))
        ]
        written = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Try(seconds, 1024 * after.ru_maxrss, written)


def beside(rows: Path, count: int, other: Path) -> Iterator[str]:
    """Yield the table of both sides, which take turns."""
    tries = [(prepare(HERE, rows), prepare(other, rows)) for _ in range(ROUNDS)]
    assert len({one.written for pair in tries for one in pair}) == 1, "the sides wrote different rows"
    ratios = [theirs.seconds / ours.seconds for ours, theirs in tries]
    yield f"| {count:,} rows | CPU seconds (spread) | rows a CPU second |"
    yield "|---|---|---|"
    for title, column in zip(("this checkout", "the other"), zip(*tries, strict=True), strict=True):
        seconds = [one.seconds for one in column]
        middle = statistics.median(seconds)
        yield f"| {title} | {middle:.1f} ({min(seconds):.1f} to {max(seconds):.1f}) | {count / middle:,.0f} |"
    yield ""
    yield f"Ratio **{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f}); the same rows, ledger"
    yield "and card. The seconds hold the start of Python, about two."


def growth(folder: Path, count: int) -> Iterator[str]:
    """Yield the cost of a row with ten times the rows and with rows of four times the length."""
    yield "| | CPU µs a row | ratio | peak memory, MB |"
    yield "|---|---|---|---|"
    first = 0.0
    for title, rows, length in (
        (f"{count // 10:,} rows of 30 words", count // 10, 1),
        ("10 times the rows", count, 1),
        ("4 times the length", count // 10, 4),
    ):
        write(folder / "grown.jsonl", rows, length)
        one = min((prepare(HERE, folder / "grown.jsonl") for _ in range(ROUNDS)), key=lambda each: each.seconds)
        each = one.seconds / rows
        first = first or each
        yield f"| {title} | {1e6 * each:.0f} | {each / first:.2f} | at most {one.memory / 1e6:.0f} |"


def measure(count: int, other: str | None) -> Iterator[str]:
    """Yield the tables; `other` is the folder of the other checkout."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name) / "rows.jsonl", count)
        if other:
            yield from beside(Path(name) / "rows.jsonl", count, Path(other))
            yield ""
        yield from growth(Path(name), count)


if __name__ == "__main__":
    print("\n".join(measure(int(sys.argv[1]), next(iter(sys.argv[2:]), None))))
