"""Write the rows of a prepared data set, one Arrow file per split."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.data.splits import SPLITS

if TYPE_CHECKING:
    from datasets import Features
    from datasets.arrow_writer import ArrowWriter
    from pyarrow import Table

BATCH_ROWS = 100  # rows per record batch


class SplitWriter:
    """The file of one split: its record batches have `BATCH_ROWS` rows, however the rows arrive."""

    def __init__(self, file: "ArrowWriter", features: "Features") -> None:
        self.file, self.features = file, features
        self.rows: list[Mapping[str, Any]] = []
        self.tables: list[Table] = []

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        self.rows.append(row)
        if len(self.rows) == BATCH_ROWS:
            self._build_table()
            self._write_batches(BATCH_ROWS)

    def write_table(self, table: "Table") -> None:
        """Append rows whose columns have the types of the features."""
        self.tables.append(table)
        if sum(map(len, self.tables)) >= BATCH_ROWS:
            self._write_batches(BATCH_ROWS)

    def finish(self) -> None:
        """Write what is left, and the end of the file."""
        if self.rows:
            self._build_table()
        if self.tables:
            self._write_batches(1)
        self.file.finalize()

    def _build_table(self) -> None:
        """Build the columns of the rows with the types of the features, which `ArrowWriter.write` would infer."""
        from pyarrow import Table

        columns = {name: [row[name] for row in self.rows] for name in self.features}
        self.tables.append(Table.from_pydict(columns, schema=self.features.arrow_schema))
        self.rows.clear()

    def _write_batches(self, least: int) -> None:
        """Write batches while at least `least` rows are left."""
        from pyarrow import concat_tables

        table = concat_tables(self.tables)
        while len(table) >= least:
            batch = table.slice(0, BATCH_ROWS)
            copied = concat_tables([batch, batch.slice(0, 0)]).combine_chunks()  # a slice would write padded buffers
            self.file.write_table(copied)
            table = table.slice(BATCH_ROWS)
        self.tables = [table]


@contextmanager
def arrow_writers(folder: Path, features: "Features") -> Iterator[dict[str, SplitWriter]]:
    """Open `<split>.arrow` for every split; yield the writers by split."""
    from datasets.arrow_writer import ArrowWriter

    files = {
        split: ArrowWriter(path=str(folder / f"{split}.arrow"), features=features, writer_batch_size=BATCH_ROWS)
        for split in SPLITS
    }
    writers = {split: SplitWriter(file, features) for split, file in files.items()}
    try:
        yield writers
        for writer in writers.values():
            writer.finish()
    finally:
        for file in files.values():
            with suppress(OSError):  # the error that ended the block is the one to report
                file.close()
