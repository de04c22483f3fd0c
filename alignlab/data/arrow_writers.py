"""Write the rows of a prepared data set, one Arrow file per split."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.data.splits import SPLITS

if TYPE_CHECKING:
    from datasets import Features

BATCH_ROWS = 100  # rows per write


@contextmanager
def arrow_writers(folder: Path, features: "Features") -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Open `<split>.arrow` for every split; yield a function that appends a row to a split.

    Columns are built by pyarrow with the types of the features, which `ArrowWriter.write` would infer and cast.
    """
    from datasets.arrow_writer import ArrowWriter
    from pyarrow import Table

    schema = features.arrow_schema
    waiting: dict[str, list[Mapping[str, Any]]] = {split: [] for split in SPLITS}
    writers = {
        split: ArrowWriter(path=str(folder / f"{split}.arrow"), features=features, writer_batch_size=BATCH_ROWS)
        for split in SPLITS
    }

    def flush(split: str) -> None:
        rows = waiting[split]
        if rows:
            columns = {name: [row[name] for row in rows] for name in features}
            writers[split].write_table(Table.from_pydict(columns, schema=schema))
        rows.clear()

    def write(split: str, row: Mapping[str, Any]) -> None:
        waiting[split].append(row)
        if len(waiting[split]) == BATCH_ROWS:
            flush(split)

    try:
        yield write
        for split, writer in writers.items():
            flush(split)
            writer.finalize()
    finally:
        for writer in writers.values():
            with suppress(OSError):  # the error that ended the block is the one to report
                writer.close()
