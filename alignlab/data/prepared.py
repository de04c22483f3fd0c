"""Prepare a data set of any kind, or find it prepared, with the ledger of every step."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config.dataset import DataSet, FileData, HhRlhfData, HubData, pocket_world

SPLITS = ("train", "validation", "test")


class Rows:
    """The rows of one split, read again from the disk each time that they are gone through."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __iter__(self) -> Iterator[dict[str, Any]]:
        from datasets import Dataset

        for batch in Dataset.from_file(str(self.file)).data.table.to_batches(max_chunksize=100):
            for row in batch.to_pylist():
                pair = {"completions": [row["chosen"], row["rejected"]]} if "chosen" in row else {}
                yield {"kind": "", "made_by": "", **row, **pair}


class Prepared(NamedTuple):
    """A data set on the disk: its splits, what each step did, how its files are written, its rejects."""

    splits: Mapping[str, Any]
    steps: dict[str, dict[str, Any]]
    files: dict[str, str]
    rejects: Path | None


class Planted(NamedTuple):
    """A fault that the pocket world's generator has planted, and how often it was found."""

    fault: str
    planted: int
    found: int


def prepared(dataset: DataSet) -> Prepared:
    """Prepare any kind of data set, or find it prepared."""
    if isinstance(dataset, HubData):
        from alignlab.data import hub_dataset

        return prepared(hub_dataset.as_files(dataset))
    if isinstance(dataset, FileData):
        from alignlab.data import file_dataset

        report = file_dataset.report(dataset)
        place = file_dataset.prepare(dataset)
        splits = {name: Rows(place / f"{name}.arrow") for name in SPLITS}
        return Prepared(splits, report.steps, report.files, place / "rejects.jsonl")
    if isinstance(dataset, HhRlhfData):
        return of_transcripts(dataset)
    from alignlab.data import view

    rows: dict[str, list[dict[str, Any]]] = {}
    for name in SPLITS:
        shown = view(dataset, "demonstrations", name).to_list()
        rows[name] = [{"made_by": "", **row, "completions": [row["completion"]]} for row in shown]
        compared = view(dataset, "pairs", name).to_list()
        rows[name] += [{"made_by": "", **row, "completions": [row["chosen"], row["rejected"]]} for row in compared]
    return Prepared(rows, {"draw": step(sum(map(len, rows.values())), {}, {})}, {}, None)


def of_transcripts(dataset: HhRlhfData) -> Prepared:
    """The rows of HH-RLHF's files, and how they were read."""
    from alignlab.data import hh_rlhf

    report, place = hh_rlhf.report(dataset), hh_rlhf.prepare(dataset)
    splits = {name: Rows(place / f"{name}.arrow") for name in SPLITS}
    read = step(sum(report.rows.values()), report.rejects, report.notes)
    files = {str(path): "hh_rlhf" for path in (*dataset.train, *dataset.test)}
    return Prepared(splits, {"read": read}, files, place / "rejects.jsonl")


def step(rows_out: int, dropped: dict[str, int], notes: dict[str, int]) -> dict[str, Any]:
    """A step of which only the outcome is known, as the ledger of `dataset=file` writes it."""
    rows_in = rows_out + sum(dropped.values())
    return {"rows_in": rows_in, "rows_out": rows_out, "added": {}, "changed": {}, "dropped": dropped, "notes": notes}


def planted(dataset: DataSet, steps: Mapping[str, Any]) -> Iterator[Planted]:
    """Hold what was found against what the pocket world's generator says that it has planted in raw.csv."""
    from alignlab.pocket.world import data_folder

    world = pocket_world(dataset)
    if not isinstance(dataset, FileData) or not world or Path("raw.csv") not in dataset.path:
        return
    truth = json.loads((data_folder(world) / "raw.truth.json").read_text(encoding="utf-8"))
    cleaned, repeats = steps.get("clean", step(0, {}, {})), steps.get("deduplicate", step(0, {}, {}))["dropped"]
    found = {
        "duplicates": repeats.get("the same as the row before", 0),
        "near_duplicates": repeats.get("nearly the same as the row before", 0),
        "markup": cleaned["changed"].get("markup", 0),
        "broken_encoding": cleaned["changed"].get("encoding", 0),
        "missing_fields": sum(cleaned["dropped"].values()),
        "personal_data": sum(steps.get("mask", step(0, {}, {}))["changed"].values()),
    }
    yield from (Planted(fault, truth.get(fault, 0), count) for fault, count in found.items())
