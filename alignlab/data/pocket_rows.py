"""Views of the pocket world's rows, read from the files that `pocket.annotators.prepare` writes.

The validation split is a share of the training prompts, chosen by a hash of the prompt, so that no prompt is in both
splits. Test rows are in files of their own: held-out combinations, labelled by the world's truth.
"""

import csv
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.config.dataset import PocketData
from alignlab.data.prepared import Prepared, step_record
from alignlab.data.splits import SPLITS, hash_fraction
from alignlab.data.views import load_view, view_names
from alignlab.errors import failure, mistake
from alignlab.pocket.world import data_folder, prompt_id
from alignlab.runtime.cache import is_intact

if TYPE_CHECKING:
    from datasets import Dataset

Row = dict[str, Any]
SIDES = ("chosen", "rejected", "completion")
# How the rows of pocket are learned; labels have a label of their own.
PLAIN: Row = {"label": 1.0, "weight": 1.0, "cut_off": [], "context": [], "rated": False, "harms": []}


def content(dataset: PocketData) -> str:
    """Return the name of the folder of the rows, which holds the hash of all that they are drawn from."""
    return data_folder(dataset).name


def view(dataset: PocketData, name: str, split: str) -> "Dataset":
    """Return one view of one split, with the columns that `alignlab.data.view` lists."""
    folder = data_folder(dataset)
    check_rows(folder, name)
    return _view(dataset, folder, name, split)


@lru_cache(maxsize=16)
def _view(dataset: PocketData, folder: Path, name: str, split: str) -> "Dataset":
    """Build a view of the rows in a folder, which is named by their hash; a plan asks for the same ones many times."""
    from datasets import Dataset

    rows = Dataset.from_list(read_rows(dataset, folder, name, split))
    return load_view(name).of_rows(rows, dataset)


def rows_of(dataset: PocketData, name: str, split: str) -> list[Row]:
    """Return the rows of a view of a split."""
    rows: list[Row] = view(dataset, name, split).to_list()
    return rows


def prepared(dataset: PocketData) -> Prepared:
    """Return the demonstrations and the pairs of each split for the card."""
    rows: dict[str, list[Row]] = {}
    for split in SPLITS:
        demonstrations = rows_of(dataset, "demonstrations", split)
        rows[split] = [{"made_by": "", **row, "completions": [row["completion"]]} for row in demonstrations]
        pairs = rows_of(dataset, "pairs", split)
        rows[split] += [{"made_by": "", **row, "completions": [row["chosen"], row["rejected"]]} for row in pairs]
    return Prepared(rows, {"draw": step_record(sum(map(len, rows.values())), {}, {})}, {}, None)


def check_rows(folder: Path, name: str) -> None:
    """Raise a failure where the rows have not been generated, and a mistake where they have no view of this name."""
    if not is_intact(folder):
        now = "run task=train, which generates them"
        raise failure(str(folder), "the pocket world's rows have not been generated yet", now)
    if name != "text" and not (folder / f"{name}.jsonl").exists():
        known = ", ".join(each for each in view_names() if each == "text" or (folder / f"{each}.jsonl").exists())
        raise mistake("dataset", f"pocket has no view {name!r}", f"it has {known}")


def read_rows(dataset: PocketData, folder: Path, name: str, split: str) -> list[Row]:
    """Return the prepared rows of a split, from the file of a view."""
    if name == "text":
        return [row for row in _dialogues(folder, split) if split == "test" or _belongs(row, dataset, split)]
    rows = [_prepared(row) for row in _read_jsonl(folder, name, split)]
    return rows if split == "test" else [row for row in rows if _belongs(row, dataset, split)]


def _prepared(row: Row) -> Row:
    """Return a row of a file as a prepared row: its prompt and its completions, best first."""
    if "messages" in row:
        *prompt, answer = row["messages"]
        completions = [answer["content"]]
    else:
        prompt = row["prompt"]
        completions = row.get("completions") or [row[side][-1]["content"] for side in SIDES if side in row]
    rating = {"label": float(row["label"]), "rated": True, "harms": row["harms"]} if "label" in row else {}
    about = {"kind": row["kind"], "id": row.get("id") or prompt_id(row["kind"], prompt[-1]["content"])}
    return {**about, "prompt": prompt, "completions": completions, **PLAIN, **rating}


def _dialogues(folder: Path, split: str) -> list[Row]:
    """Return the dialogues as rows of plain text; the last tenth is the test split."""
    with (folder / "dialogues.csv").open(encoding="utf-8", newline="") as lines:
        rows = [
            {"id": row["id"], "prompt": [], "completions": [row["dialogue"]], **PLAIN} for row in csv.DictReader(lines)
        ]
    first_test = len(rows) - max(1, len(rows) // 10)
    return rows[first_test:] if split == "test" else rows[:first_test]


def _read_jsonl(folder: Path, name: str, split: str) -> list[Row]:
    path = folder / (f"{name}.test.jsonl" if split == "test" else f"{name}.jsonl")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _belongs(row: Row, dataset: PocketData, split: str) -> bool:
    """Return whether a row that is not for tests belongs to a split."""
    text = row["prompt"][-1]["content"] if row["prompt"] else row["completions"][0]
    return (hash_fraction(text) < dataset.validation) == (split == "validation")
