"""The views of the pocket world's rows: reads what `pocket.annotators.prepare` has written.

The validation split is a share of the training prompts, taken by a hash of the prompt, so that no prompt stands on
both sides. Test rows are another file: held-out combinations, labelled by the world's truth.
"""

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignlab.config.dataset import PocketData
from alignlab.errors import failure, mistake
from alignlab.pocket.world import data_folder

Row = dict[str, Any]


def view(dataset: PocketData, name: str, split: str) -> list[Row]:
    """Give the rows of a view: demonstrations, pairs, rankings, prompts or text; split train, validation or test."""
    if name not in _READERS:
        raise mistake("dataset", f"pocket has no view {name!r}", f"it has {', '.join(_READERS)}")
    rows = _READERS[name](_folder(dataset), split)
    if split == "test":
        return rows
    return [row for row in rows if _is_validation(row, dataset.validation) == (split == "validation")]


def _folder(dataset: PocketData) -> Path:
    folder = data_folder(dataset)
    if not folder.exists():
        raise failure(
            str(folder), "the pocket world's rows have not been drawn yet", "run task=train, which draws them"
        )
    return folder


def _jsonl(folder: Path, name: str, split: str) -> list[Row]:
    path = folder / (f"{name}.test.jsonl" if split == "test" else f"{name}.jsonl")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _demonstrations(folder: Path, split: str) -> list[Row]:
    return [
        _kept(row) | {"prompt": row["messages"][:-1], "completion": row["messages"][-1]["content"]}
        for row in _jsonl(folder, "demonstrations", split)
    ]


def _pairs(folder: Path, split: str) -> list[Row]:
    return [
        _kept(row)
        | {"prompt": row["prompt"], "chosen": row["chosen"][-1]["content"], "rejected": row["rejected"][-1]["content"]}
        for row in _jsonl(folder, "pairs", split)
    ]


def _rankings(folder: Path, split: str) -> list[Row]:
    return [
        _kept(row) | {"prompt": row["prompt"], "completions": row["completions"]}
        for row in _jsonl(folder, "rankings", split)
    ]


def _prompts(folder: Path, split: str) -> list[Row]:
    return [_kept(row) | {"prompt": row["prompt"]} for row in _jsonl(folder, "prompts", split)]


def _text(folder: Path, split: str) -> list[Row]:
    """Read the dialogues as plain text; the last tenth is the test."""
    with (folder / "dialogues.csv").open(encoding="utf-8", newline="") as lines:
        rows = [{"text": row["dialogue"], "id": row["id"]} for row in csv.DictReader(lines)]
    cut = len(rows) - max(1, len(rows) // 10)
    return rows[cut:] if split == "test" else rows[:cut]


_READERS: dict[str, Callable[[Path, str], list[Row]]] = {
    "demonstrations": _demonstrations,
    "pairs": _pairs,
    "rankings": _rankings,
    "prompts": _prompts,
    "text": _text,
}


def _kept(row: Row) -> Row:
    return {"kind": row["kind"], "id": row.get("id") or _name(row)}


def _name(row: Row) -> str:
    asked = row.get("prompt") or row["messages"][:-1]
    return f"{row['kind']}-{_digest(asked[-1]['content'])[:10]}"


def _is_validation(row: Row, share: float) -> bool:
    """Decide by the prompt alone: the first 32 bits of its hash, as a share of one."""
    asked = row["text"] if "text" in row else row["prompt"][-1]["content"]
    return int(_digest(asked)[:8], 16) / 2**32 < share


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
