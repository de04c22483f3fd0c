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
    """Open `<split>.arrow` for every split; yield a function that appends a row to a split."""
    from datasets.arrow_writer import ArrowWriter

    writers = {
        split: ArrowWriter(path=str(folder / f"{split}.arrow"), features=features, writer_batch_size=BATCH_ROWS)
        for split in SPLITS
    }
    try:
        yield lambda split, row: writers[split].write(row)
        for writer in writers.values():
            writer.finalize()
    finally:
        for writer in writers.values():
            with suppress(OSError):  # the error that ended the block is the one to report
                writer.close()
