"""Views of the pocket world's rows, read from the files that `pocket.annotators.prepare` writes.

The validation split is a share of the training prompts, chosen by a hash of the prompt, so that no prompt is in both
splits. Test rows are in files of their own: held-out combinations, labelled by the world's truth.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.config.dataset import PocketData
from alignlab.data.prepared import Prepared, step_record
from alignlab.data.splits import SPLITS, hash_fraction
from alignlab.errors import failure, mistake
from alignlab.pocket.world import data_folder, prompt_id
from alignlab.runtime.cache import is_intact

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]


def content(dataset: PocketData) -> str:
    """Return the name of the folder of the rows, which holds the hash of all that they are drawn from."""
    return data_folder(dataset).name


def view(dataset: PocketData, name: str, split: str) -> "Dataset":
    """Return one view of one split, with the columns that `alignlab.data.view` lists."""
    from datasets import Dataset

    return Dataset.from_list(rows_of(dataset, name, split))


def prepared(dataset: PocketData) -> Prepared:
    """Return the demonstrations and the pairs of each split for the card."""
    rows: dict[str, list[Row]] = {}
    for split in SPLITS:
        demonstrations = rows_of(dataset, "demonstrations", split)
        rows[split] = [{"made_by": "", **row, "completions": [row["completion"]]} for row in demonstrations]
        pairs = rows_of(dataset, "pairs", split)
        rows[split] += [{"made_by": "", **row, "completions": [row["chosen"], row["rejected"]]} for row in pairs]
    return Prepared(rows, {"draw": step_record(sum(map(len, rows.values())), {}, {})}, {}, None)


def rows_of(dataset: PocketData, name: str, split: str) -> list[Row]:
    """Return the rows of a view (demonstrations, pairs, rankings, prompts, text) of a split."""
    if name not in READERS:
        raise mistake("dataset", f"pocket has no view {name!r}", f"it has {', '.join(READERS)}")
    folder = data_folder(dataset)
    if not is_intact(folder):
        now = "run task=train, which generates them"
        raise failure(str(folder), "the pocket world's rows have not been generated yet", now)
    rows = READERS[name](folder, split)
    if split == "test":
        return rows
    return [row for row in rows if _is_validation(row, dataset.validation) == (split == "validation")]


def _demonstrations(folder: Path, split: str) -> list[Row]:
    return [
        _shared_fields(row) | {"prompt": row["messages"][:-1], "completion": row["messages"][-1]["content"]}
        for row in _read_jsonl(folder, "demonstrations", split)
    ]


def _pairs(folder: Path, split: str) -> list[Row]:
    return [
        _shared_fields(row)
        | {"prompt": row["prompt"], "chosen": row["chosen"][-1]["content"], "rejected": row["rejected"][-1]["content"]}
        for row in _read_jsonl(folder, "pairs", split)
    ]


def _rankings(folder: Path, split: str) -> list[Row]:
    return [
        _shared_fields(row) | {"prompt": row["prompt"], "completions": row["completions"]}
        for row in _read_jsonl(folder, "rankings", split)
    ]


def _prompts(folder: Path, split: str) -> list[Row]:
    return [_shared_fields(row) | {"prompt": row["prompt"]} for row in _read_jsonl(folder, "prompts", split)]


def _text(folder: Path, split: str) -> list[Row]:
    """Return the dialogues as plain text; the last tenth is the test split."""
    with (folder / "dialogues.csv").open(encoding="utf-8", newline="") as lines:
        rows = [{"text": row["dialogue"], "id": row["id"]} for row in csv.DictReader(lines)]
    first_test = len(rows) - max(1, len(rows) // 10)
    return rows[first_test:] if split == "test" else rows[:first_test]


READERS: dict[str, Callable[[Path, str], list[Row]]] = {
    "demonstrations": _demonstrations,
    "pairs": _pairs,
    "rankings": _rankings,
    "prompts": _prompts,
    "text": _text,
}


def _read_jsonl(folder: Path, name: str, split: str) -> list[Row]:
    path = folder / (f"{name}.test.jsonl" if split == "test" else f"{name}.jsonl")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _shared_fields(row: Row) -> Row:
    return {"kind": row["kind"], "id": row.get("id") or _id(row)}


def _id(row: Row) -> str:
    prompt = row.get("prompt") or row["messages"][:-1]
    return prompt_id(row["kind"], prompt[-1]["content"])


def _is_validation(row: Row, share: float) -> bool:
    return hash_fraction(row["text"] if "text" in row else row["prompt"][-1]["content"]) < share
