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
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import NamedTuple

from alignlab.runtime.worker_pool import usable_cores

HERE = Path(__file__).parent.parent
ROUNDS = 3
WORDS = [f"word{number}" for number in range(5000)]


class Try(NamedTuple):
    """The wall and CPU seconds of a try, what it printed, and the hash of what it wrote.

    `memory` is the peak of the anonymous bytes of all its processes together: `counted` where a page that forks share
    counts for each of them, `memory` where it counts once.
    """

    wall: float
    seconds: float
    memory: int
    counted: int
    printed: str
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
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        environment = os.environ | {"PYTHONPATH": str(checkout), "ALIGNLAB_CACHE": f"{name}/cache"}
        command = [sys.executable, "-m", "alignlab", "task=prepare", "dataset=file", f"dataset.path={rows}"]
        with (Path(name) / "printed").open("w") as printed:
            process = subprocess.Popen(command, cwd=name, env=environment, stdout=printed)
            peak = [0, 0]
            while process.poll() is None:
                both = [anonymous(each) for each in processes(process.pid)]
                peak = [max(most, sum(now)) for most, now in zip(peak, zip(*both, strict=True), strict=True)]
                time.sleep(0.2)
        wall = time.monotonic() - started
        if process.returncode:
            raise SystemExit(f"exit code {process.returncode}")
        files = [
            file
            for pattern in ("cache/data/*/*.arrow", "cache/data/*/report.json", "outputs/*/*/card.json")
            for file in sorted(Path(name).glob(pattern))
        ]
        written = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]
        said = (Path(name) / "printed").read_text(encoding="utf-8").replace(name, "…")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Try(wall, seconds, *peak, said, written)


def processes(root: int) -> Iterator[int]:
    """Yield a process and those that it has started, at any depth."""
    yield root
    for file in Path(f"/proc/{root}/task").glob("*/children"):
        with suppress(OSError):  # it has ended meanwhile
            for child in file.read_text().split():
                yield from processes(int(child))


def anonymous(process: int) -> tuple[int, int]:
    """Return the anonymous bytes of a process, by its share of each page and as a whole; 0 after it has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return 0, 0
    kilobytes = {line.split()[0]: int(line.split()[1]) for line in lines}
    return 1024 * kilobytes.get("Pss_Anon:", 0), 1024 * kilobytes.get("Anonymous:", 0)


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


def growth(folder: Path, count: int, rounds: int = ROUNDS) -> Iterator[str | Try]:
    """Yield the cost of a row with ten times the rows and with rows of four times the length, and the longest try."""
    yield "| | seconds | rows a second | CPU µs a row | ratio | peak memory of all processes, MB |"
    yield "|---|---|---|---|---|---|"
    first = 0.0
    for title, rows, length in (
        (f"{count // 10:,} rows of 30 words", count // 10, 1),
        ("10 times the rows", count, 1),
        ("4 times the length", count // 10, 4),
    ):
        write(folder / "grown.jsonl", rows, length)
        one = min((prepare(HERE, folder / "grown.jsonl") for _ in range(rounds)), key=lambda each: each.seconds)
        each = one.seconds / rows
        first = first or each
        cost = f"{1e6 * each:.0f} | {each / first:.2f}"
        yield f"| {title} | {one.wall:.0f} | {rows / one.wall:,.0f} | {cost} | {one.memory / 1e6:.0f} |"
        if rows == count:
            longest = one
    yield longest


def million() -> Iterator[str]:
    """Yield how a million rows are prepared by one command, and how the cost of a row grows."""
    with tempfile.TemporaryDirectory() as name:
        *table, one = growth(Path(name), 1_000_000, rounds=1)
    assert isinstance(one, Try)
    yield "`python -m alignlab task=prepare dataset=file dataset.path=rows.jsonl`: a million rows (290 MB), every"
    yield f"tenth the same as the one before: {one.wall:.0f} s, **{1e6 / one.wall:,.0f} rows a second**, with"
    load, cores = os.getloadavg()[1], usable_cores()
    yield f"{one.seconds:.0f} s of CPU ({1e6 / one.seconds:,.0f} rows a CPU second), load {load:.0f} on {cores} cores."
    yield f"All processes together have at most {one.memory / 1e6:.0f} MB of"
    yield f"anonymous memory ({one.counted / 1e6:.0f} MB where a page that they share counts for each)."
    yield from ("", "```", *one.printed.splitlines(), "```", "", *map(str, table), "")
    yield f"- {'met' if one.counted < 1e9 else '**not met**'}: under 1 GB of anonymous memory"
    yield f"- {'met' if one.wall <= 1e6 / 12_000 else '**not met**'}: 12,000 rows a second"


def measure(count: int, other: str | None) -> Iterator[str]:
    """Yield the tables; `other` is the folder of the other checkout."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name) / "rows.jsonl", count)
        if other:
            yield from beside(Path(name) / "rows.jsonl", count, Path(other))
            yield ""
        yield from (line for line in growth(Path(name), count) if isinstance(line, str))


if __name__ == "__main__":
    print("\n".join(measure(int(sys.argv[1]), next(iter(sys.argv[2:]), None))))
