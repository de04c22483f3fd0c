"""Mutated data files, as careless exports, broken downloads and attackers make them.

`mutant(number)` always returns the same file, so that a failure can be reproduced. As a script, `python tests/fuzz.py
COUNT FOLDER` loads COUNT files in one process and prints the longest time, the peak memory and the number of failures.
"""

import gzip
import io
import json
import re
import sys
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from alignlab.config.dataset import FileData
from alignlab.data import file_dataset
from alignlab.errors import Explained

ROWS = 30
DEEP = 5_000
HUGE = 300_000
ODD = (None, True, 3, -1.5, 1e308, [], {}, [[]], [1], "", " ", "\x00", "\ud800", "N/A", {"role": "user"}, "x" * HUGE)


def seeds(random: Random) -> list[dict[str, object]]:
    """Return rows of one format."""
    questions = [f"Question number {n}, is it {random.choice('abc')}?" for n in range(ROWS)]
    talk = "\n\nHuman: {}\n\nAssistant: {}"
    formats: list[Callable[[str], dict[str, object]]] = [
        lambda q: {"prompt": q, "completion": f"So {q}"},
        lambda q: {"prompt": q, "chosen": f"So {q}", "rejected": "No."},
        lambda q: {"instruction": q, "input": "", "output": "So.", "history": [["Hi", "Hello"]]},
        lambda q: {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "So."}]},
        lambda q: {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": "So."}]},
        lambda q: {"chosen": talk.format(q, "So."), "rejected": talk.format(q, "No.")},
        lambda q: {"prompt": q, "completions": ["So.", "No.", "Never."]},
        lambda q: {"instruction": q, "instances": [{"input": "", "output": "So."}, {"input": "x", "output": "No."}]},
        lambda q: {"text": q},
    ]
    row_format = random.choice(formats)
    return [row_format(question) for question in questions]


def odd_value(rows: list[dict[str, object]], random: Random) -> None:
    """Replace a value by an odd one, drop it, or nest it."""
    row = random.choice(rows)
    name = random.choice(list(row) or ["new"])
    match random.randrange(5):
        case 0:
            row.pop(name, None)
        case 1:
            deep: object = "bottom"
            for _ in range(random.choice((3, 200))):
                deep = [deep] if random.random() < 0.5 else {"a": deep}
            row[name] = deep
        case 2 if isinstance(row.get(name), list) and row[name]:
            inner = row[name]
            assert isinstance(inner, list)
            inner[random.randrange(len(inner))] = deepcopy(random.choice(ODD))
        case _:
            row[name] = deepcopy(random.choice(ODD))


def table(rows: list[dict[str, object]]) -> bytes:
    """Write rows as CSV."""
    import csv

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(rows[0])
    writer.writerows([str(value) for value in row.values()] for row in rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def parquet(rows: list[dict[str, object]]) -> bytes:
    """Write rows as Parquet, or as damaged Parquet if pyarrow rejects them."""
    import pyarrow
    from pyarrow.parquet import write_table

    whole = io.BytesIO()
    try:
        write_table(pyarrow.Table.from_pylist(rows), whole)
    except (pyarrow.ArrowException, TypeError, OverflowError, UnicodeError):
        return b"PAR1" + json.dumps(rows).encode()
    return whole.getvalue()


WRITERS: dict[str, Callable[[list[dict[str, object]]], bytes]] = {
    "rows.jsonl": lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode(),
    "rows.json": lambda rows: json.dumps(rows, indent=1).encode(),
    "rows.csv": table,
    "rows.parquet": parquet,
    "rows.jsonl.gz": lambda rows: gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), 1),
}


def flip(data: bytes, random: Random) -> bytes:
    """Flip a few bits."""
    flipped = bytearray(data)
    for _ in range(random.randrange(1, 9)):
        flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
    return bytes(flipped)


def cut(data: bytes, random: Random) -> bytes:
    """Remove the end, or a part inside."""
    start, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:start] if random.random() < 0.5 else data[:start] + data[end:]


def insert(data: bytes, random: Random) -> bytes:
    """Insert unexpected bytes."""
    strange = random.choice(
        [b"\x00" * 40, b"\xff\xfe", b"\n\n\n", b'"', b"[" * DEEP, b'{"a":' * DEEP, b"}", b",", b"\r", b"\xef\xbb\xbf",
         b"x" * HUGE, b"1" * 6000, b"NaN", b"\\ud800", b"-", b'{"prompt": "twice", "prompt": 3}']
    )  # fmt: skip
    place = random.randrange(len(data) + 1)
    return data[:place] + strange + data[place:]


def bomb(data: bytes, random: Random) -> bytes:
    """Return a small gzip file of many equal bytes."""
    return gzip.compress(
        random.choice([b"\n", b"x", b'{"prompt": "A?"}\n', b"["]) * random.choice((1 << 10, 1 << 14)), 9
    )


MUTATIONS = (flip, flip, cut, cut, insert, insert, bomb)


def mutant(number: int) -> tuple[str, bytes]:
    """Return the name and the bytes of a mutated file."""
    random = Random(f"mutant {number}")
    rows = seeds(random)
    for _ in range(random.choice((0, 0, 1, 1, 3, 20))):
        odd_value(rows, random)
    name = random.choice(list(WRITERS))
    data = WRITERS[name](rows)
    for _ in range(random.choice((0, 1, 1, 1, 2)) if data else 0):
        data = random.choice(MUTATIONS)(data, random) or b"\n"
    return random.choice([name, name, name, "rows.json", "rows.csv", "rows.txt"]), data


class Outcome(NamedTuple):
    """The result of loading a file: the number of rows, or the message of the failure, and the seconds it took."""

    rows: int
    message: str
    seconds: float


def load(dataset: FileData, folder: Path) -> Outcome:
    """Load a file as a run does; raise every exception that is not an explained failure."""
    started = time.process_time()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file_dataset.write_splits(dataset, folder)
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        check_balance(report["steps"], sum(1 for _ in (folder / "rejects.jsonl").open(encoding="utf-8")))
        rows = sum(report["rows"].values())
        return Outcome(rows, "", time.process_time() - started)
    except Explained as error:
        message = str(error)
        assert len(message) < 2_000, message[:300]
        assert re.search(r"[:;]", message), message
        return Outcome(0, message, time.process_time() - started)


def check_balance(steps: dict[str, dict[str, object]], rejects: int) -> None:
    """Assert that every row of every step is accounted for and that every reject is listed."""
    rows_before = None
    for name, step in steps.items():
        added, dropped = sum(step["added"].values()), sum(step["dropped"].values())  # type: ignore[attr-defined]
        assert step["rows_in"] + added == step["rows_out"] + dropped, (name, step)  # type: ignore[operator]
        assert rows_before is None or step["rows_in"] == rows_before, (name, step)
        rows_before = step["rows_out"]
    listed = sum(sum(steps[name]["dropped"].values()) for name in ("read", "validate"))  # type: ignore[attr-defined]
    assert listed == rejects


def memory() -> int:
    """Return the peak memory of this process in bytes; `ru_maxrss` would begin with that of the process before exec."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


LENIENT = {"max_rejects": 1.0, "deduplicate": "near"}


def main(count: int, folder: Path) -> dict[str, float]:
    """Load mutants one after the other; raise the number of the first that causes an unexplained exception."""
    from command import config

    defaults: dict[str, Any] = dict(config("dataset=file", "dataset.path=.", "task=prepare").dataset)
    outcomes = []
    for number in range(count):
        name, data = mutant(number)
        path = folder / name
        path.write_bytes(data)
        settings = defaults | {"path": (path,)} | (LENIENT if number % 2 else {})
        try:
            outcomes.append(load(FileData(**settings), folder / "out"))
        except Exception as error:
            raise AssertionError(f"mutant {number} ({name}): {type(error).__name__}: {str(error)[:300]}") from error
        path.unlink()
    return {
        "files": count,
        "longest": max(outcome.seconds for outcome in outcomes),
        "memory": memory(),
        "refused": sum(bool(outcome.message) for outcome in outcomes),
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), Path(sys.argv[2]))))
