"""Prepare a data set of any kind: its splits, and the ledger of the steps that made them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from alignlab.config.dataset import DataSettings
from alignlab.data import module_of
from alignlab.data.splits import SPLITS
from alignlab.runtime.worker_pool import Ask, in_order, worker_count

if TYPE_CHECKING:
    from pyarrow import Table

Result = TypeVar("Result")
PART_ROWS = 2_000
PART_BYTES = 1 << 22  # of a part, on average


class ArrowRows:
    """The rows of one split, read from the disk in every iteration; a slice is read in the same way."""

    def __init__(self, file: Path, start: int = 0, stop: int | None = None) -> None:
        self.file, self.start, self.stop = file, start, stop

    @cached_property
    def table(self) -> "Table":
        """Return the columns of all rows, which lie on the disk."""
        from datasets import Dataset

        return Dataset.from_file(str(self.file)).data.table

    def __len__(self) -> int:
        return len(self.table) if self.stop is None else self.stop - self.start

    def __getitem__(self, rows: slice) -> "ArrowRows":
        start, stop, _ = rows.indices(len(self))
        part = ArrowRows(self.file, self.start + start, self.start + stop)
        part.table = self.table
        return part

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.table.slice(self.start, len(self)).to_batches(max_chunksize=100):
            for row in batch.to_pylist():
                pair = {"completions": [row["chosen"], row["rejected"]]} if "chosen" in row else {}
                yield {"kind": "", "made_by": "", **row, **pair}


Rows = ArrowRows | Sequence[Mapping[str, Any]]
Splits = Mapping[str, Rows]


class Prepared(NamedTuple):
    """A prepared data set: its splits, what each step did, the format of each file, and the file of its rejects.

    `unread` counts the rows that hold a field that no format reads, by field.
    """

    splits: Splits
    steps: dict[str, dict[str, Any]]
    files: dict[str, str]
    rejects: Path | None
    unread: Mapping[str, int] = MappingProxyType({})


class Part(NamedTuple):
    """A part of the rows of a split; `first` is the place of its first row among all rows that are processed."""

    split: str
    rows: Rows
    first: int


def by_parts(work: Callable[[Part], Result], splits: Splits) -> AbstractContextManager[Iterator[Result]]:
    """Iterate over `work(part)` for all rows of the splits in parts, in order; several processes share many rows."""
    places = list(part_places(splits))
    sizes = [rows.file.stat().st_size for rows in splits.values() if isinstance(rows, ArrowRows)]

    def of_place(place: tuple[str, int, int, int], _: Ask) -> Result:
        split, start, stop, first = place
        return work(Part(split, splits[split][start:stop], first))

    return in_order(of_place, places, worker_count(sum(sizes)))


def part_places(splits: Splits) -> Iterator[tuple[str, int, int, int]]:
    """Yield where parts begin and end in their split, with the place of the first row among all."""
    first = 0
    for split, rows in splits.items():
        size = rows.file.stat().st_size if isinstance(rows, ArrowRows) else 0
        step = max(1, min(PART_ROWS, PART_BYTES * len(rows) // size)) if size and len(rows) else PART_ROWS
        for start in range(0, len(rows), step):
            yield split, start, min(start + step, len(rows)), first + start
        first += len(rows)


def splits_in(folder: Path) -> dict[str, ArrowRows]:
    """Return the splits of a prepared data set, whose Arrow files lie in a folder."""
    return {name: ArrowRows(folder / f"{name}.arrow") for name in SPLITS}


class Planted(NamedTuple):
    """A fault that the pocket world's generator planted: how often, and how often the steps found it."""

    fault: str
    planted: int
    found: int


def prepare(dataset: DataSettings) -> Prepared:
    """Prepare a data set of any kind if it is not cached."""
    prepared: Prepared = module_of(dataset).prepared(dataset)
    return prepared


def describe_unread(unread: Mapping[str, int], most: int = 12) -> Iterator[str]:
    """Yield a line that names the fields that no format reads, with the number of rows that hold them."""
    if unread:
        names = [f"{name} ({count:,} rows)" for name, count in list(unread.items())[:most]]
        more = f" and {len(unread) - most} more" if len(unread) > most else ""
        yield f"not read: {', '.join(names)}{more}"


def step_record(rows_out: int, dropped: dict[str, int], notes: dict[str, int]) -> dict[str, Any]:
    """Return the record of a step in the format of the ledger of `dataset=file`."""
    rows_in = rows_out + sum(dropped.values())
    return {"rows_in": rows_in, "rows_out": rows_out, "added": {}, "changed": {}, "dropped": dropped, "notes": notes}


def planted(dataset: DataSettings, steps: Mapping[str, Any]) -> Iterator[Planted]:
    """Yield the faults that the pocket world planted in raw.csv, with how often the steps found them."""
    from alignlab.pocket.world import data_folder

    world = dataset.pocket_world
    if not world or Path("raw.csv") not in dataset.world_files:
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
