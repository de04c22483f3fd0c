"""Prepare a data set of any kind: its splits, and the ledger of the steps that made them."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.config.dataset import DataSet, FileData, HhRlhfData, HubData, pocket_world
from alignlab.data.splits import SPLITS
from alignlab.runtime.run_files import REJECTS


class ArrowRows:
    """The rows of one split, read from the disk in every iteration."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __iter__(self) -> Iterator[dict[str, Any]]:
        from datasets import Dataset

        for batch in Dataset.from_file(str(self.file)).data.table.to_batches(max_chunksize=100):
            for row in batch.to_pylist():
                pair = {"completions": [row["chosen"], row["rejected"]]} if "chosen" in row else {}
                yield {"kind": "", "made_by": "", **row, **pair}


class Prepared(NamedTuple):
    """A prepared data set: its splits, what each step did, the format of each file, and the file of its rejects."""

    splits: Mapping[str, Iterable[dict[str, Any]]]
    steps: dict[str, dict[str, Any]]
    files: dict[str, str]
    rejects: Path | None


class Planted(NamedTuple):
    """A fault that the pocket world's generator planted: how often, and how often the steps found it."""

    fault: str
    planted: int
    found: int


def prepare(dataset: DataSet) -> Prepared:
    """Prepare a data set of any kind if it is not cached."""
    if isinstance(dataset, HubData):
        from alignlab.data import hub_dataset

        return prepare(hub_dataset.as_file_data(dataset))
    if isinstance(dataset, FileData):
        from alignlab.data import file_dataset

        report, folder = file_dataset.read_report(dataset), file_dataset.prepare(dataset)
        splits = {name: ArrowRows(folder / f"{name}.arrow") for name in SPLITS}
        return Prepared(splits, report.steps, report.files, folder / REJECTS)
    if isinstance(dataset, HhRlhfData):
        return prepare_transcripts(dataset)
    from alignlab.data import view

    rows: dict[str, list[dict[str, Any]]] = {}
    for name in SPLITS:
        demonstrations = view(dataset, "demonstrations", name).to_list()
        rows[name] = [{"made_by": "", **row, "completions": [row["completion"]]} for row in demonstrations]
        pairs = view(dataset, "pairs", name).to_list()
        rows[name] += [{"made_by": "", **row, "completions": [row["chosen"], row["rejected"]]} for row in pairs]
    return Prepared(rows, {"draw": step_record(sum(map(len, rows.values())), {}, {})}, {}, None)


def prepare_transcripts(dataset: HhRlhfData) -> Prepared:
    """Prepare HH-RLHF's files."""
    from alignlab.data import hh_rlhf

    report, folder = hh_rlhf.read_report(dataset), hh_rlhf.prepare(dataset)
    splits = {name: ArrowRows(folder / f"{name}.arrow") for name in SPLITS}
    read = step_record(sum(report.rows.values()), report.rejects, report.notes)
    files = {str(path): "hh_rlhf" for path in (*dataset.train, *dataset.test)}
    return Prepared(splits, {"read": read}, files, folder / REJECTS)


def step_record(rows_out: int, dropped: dict[str, int], notes: dict[str, int]) -> dict[str, Any]:
    """Return the record of a step in the format of the ledger of `dataset=file`."""
    rows_in = rows_out + sum(dropped.values())
    return {"rows_in": rows_in, "rows_out": rows_out, "added": {}, "changed": {}, "dropped": dropped, "notes": notes}


def planted(dataset: DataSet, steps: Mapping[str, Any]) -> Iterator[Planted]:
    """Yield the faults that the pocket world planted in raw.csv, with how often the steps found them."""
    from alignlab.pocket.world import data_folder

    world = pocket_world(dataset)
    if not isinstance(dataset, FileData) or not world or Path("raw.csv") not in dataset.path:
        return
    truth = json.loads((data_folder(world) / "raw.truth.json").read_text(encoding="utf-8"))
    clean, deduplicate, mask = (steps.get(name, step_record(0, {}, {})) for name in ("clean", "deduplicate", "mask"))
    counts = {
        "duplicates": deduplicate["dropped"].get("the same as the row before", 0),
        "near_duplicates": deduplicate["dropped"].get("nearly the same as the row before", 0),
        "markup": clean["changed"].get("markup", 0),
        "broken_encoding": clean["changed"].get("encoding", 0),
        "missing_fields": sum(clean["dropped"].values()),
        "personal_data": sum(mask["changed"].values()),
    }
    yield from (Planted(fault, truth.get(fault, 0), count) for fault, count in counts.items())
