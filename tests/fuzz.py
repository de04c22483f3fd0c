"""Mutated files: what a careless export, a broken download or an evil hand makes of good ones.

`mutant(number)` is always the same file, so that a failure can be looked at again. As a script,
`python tests/fuzz.py COUNT FOLDER`, it loads so many in one process and prints the longest time, the most memory and
how many were refused.
"""

import gzip
import io
import json
import re
import resource
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
    """Rows of one shape."""
    said = [f"Question number {n}, is it {random.choice('abc')}?" for n in range(ROWS)]
    talk = "\n\nHuman: {}\n\nAssistant: {}"
    shapes: list[Callable[[str], dict[str, object]]] = [
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
    shape = random.choice(shapes)
    return [shape(q) for q in said]


def odd_value(rows: list[dict[str, object]], random: Random) -> None:
    """Put something else where a value was, drop it, or bury it."""
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
    """Rows as CSV."""
    import csv

    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(rows[0])
    writer.writerows([str(value) for value in row.values()] for row in rows)
    return text.getvalue().encode("utf-8", "surrogatepass")


def parquet(rows: list[dict[str, object]]) -> bytes:
    """Rows as Parquet, where pyarrow takes them."""
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
    """Turn over a few bits."""
    spoiled = bytearray(data)
    for _ in range(random.randrange(1, 9)):
        spoiled[random.randrange(len(spoiled))] ^= 1 << random.randrange(8)
    return bytes(spoiled)


def cut(data: bytes, random: Random) -> bytes:
    """Leave out the end, or a piece inside."""
    start, end = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:start] if random.random() < 0.5 else data[:start] + data[end:]


def insert(data: bytes, random: Random) -> bytes:
    """Put something strange in between."""
    strange = random.choice(
        [b"\x00" * 40, b"\xff\xfe", b"\n\n\n", b'"', b"[" * DEEP, b'{"a":' * DEEP, b"}", b",", b"\r", b"\xef\xbb\xbf",
         b"x" * HUGE, b"1" * 6000, b"NaN", b"\\ud800", b"-", b'{"prompt": "twice", "prompt": 3}']
    )  # fmt: skip
    place = random.randrange(len(data) + 1)
    return data[:place] + strange + data[place:]


def bomb(data: bytes, random: Random) -> bytes:
    """A small gzip file of a great many equal bytes."""
    return gzip.compress(
        random.choice([b"\n", b"x", b'{"prompt": "A?"}\n', b"["]) * random.choice((1 << 10, 1 << 14)), 9
    )


SPOILERS = (flip, flip, cut, cut, insert, insert, bomb)


def mutant(number: int) -> tuple[str, bytes]:
    """The name and the bytes of a mutated file."""
    random = Random(f"mutant {number}")
    rows = seeds(random)
    for _ in range(random.choice((0, 0, 1, 1, 3, 20))):
        odd_value(rows, random)
    name = random.choice(list(WRITERS))
    data = WRITERS[name](rows)
    for _ in range(random.choice((0, 1, 1, 1, 2)) if data else 0):
        data = random.choice(SPOILERS)(data, random) or b"\n"
    return random.choice([name, name, name, "rows.json", "rows.csv", "rows.txt"]), data


class Outcome(NamedTuple):
    """What became of a mutant: rows that came out, or the sentence that refused it; and how long it took."""

    rows: int
    said: str
    seconds: float


def load(dataset: FileData, folder: Path) -> Outcome:
    """Load a file as a run does; anything but a sentence of ours is a fault that is raised."""
    started = time.process_time()
    try:
        made: dict[str, dict[str, int]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        file_dataset.write(dataset, folder)
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        made = report["steps"]
        balance(made, sum(1 for _ in (folder / "rejects.jsonl").open(encoding="utf-8")))
        rows = sum(report["rows"].values())
        return Outcome(rows, "", time.process_time() - started)
    except Explained as error:
        said = str(error)
        assert len(said) < 2_000, said[:300]
        assert re.search(r"[:;]", said), said
        return Outcome(0, said, time.process_time() - started)


def balance(steps: dict[str, dict[str, object]], rejects: int) -> None:
    """Every row of every step is accounted for, and every reject is listed."""
    before = None
    for name, step in steps.items():
        added, dropped = sum(step["added"].values()), sum(step["dropped"].values())  # type: ignore[attr-defined]
        assert step["rows_in"] + added == step["rows_out"] + dropped, (name, step)  # type: ignore[operator]
        assert before is None or step["rows_in"] == before, (name, step)
        before = step["rows_out"]
    listed = sum(sum(steps[name]["dropped"].values()) for name in ("read", "validate"))  # type: ignore[attr-defined]
    assert listed == rejects


def memory() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


MILD = {"max_rejects": 1.0, "deduplicate": "near"}


def main(count: int, folder: Path) -> dict[str, float]:
    """Load mutants one after the other; raise the first that is neither rows nor a sentence, by number."""
    from command import config

    defaults: dict[str, Any] = dict(config("dataset=file", "dataset.path=.", "task=prepare").dataset)
    outcomes = []
    for number in range(count):
        name, data = mutant(number)
        path = folder / name
        path.write_bytes(data)
        settings = defaults | {"path": (path,)} | (MILD if number % 2 else {})
        try:
            outcomes.append(load(FileData(**settings), folder / "out"))
        except Exception as error:
            raise AssertionError(f"mutant {number} ({name}): {type(error).__name__}: {str(error)[:300]}") from error
        path.unlink()
    return {
        "files": count,
        "longest": max(outcome.seconds for outcome in outcomes),
        "memory": memory(),
        "refused": sum(bool(outcome.said) for outcome in outcomes),
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), Path(sys.argv[2]))))
