"""Steps that are the same on any hardware: which rows make one, and what each row counts.

A step's rows are parted among the processes, each of which computes its share in pieces. The Trainer takes the mean
over pieces and processes, which is the mean over rows only where all have as many; where they do not, in an epoch's
last step, a piece's mean counts by its rows. The mean over tokens is the Trainer's own (`num_items_in_batch`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from alignlab.runtime import distributed
from alignlab.training.batching import Buckets, Marked, Pieces, Shares

REAL = "rows that count"


class Steps:
    """A trainer whose steps have `batch_size` rows over all processes, laid out by length within a step."""

    waiting: list[int]  # rows that count in each micro-batch of the step that are still to be computed
    pieces = 0  # micro-batches of this process in the step
    rows_now = 0  # that count in the current micro-batch
    rows_in_step = 0  # that count, over all micro-batches and processes
    in_step: list[float]  # the sums of `counts`, over all micro-batches and processes

    def order(self: Any, lengths: list[int], batch_size: int) -> Buckets:
        """The rows of an epoch in their order: chance alone decides which make a step."""
        return Pieces(lengths, batch_size, self.args.seed)

    def get_train_dataloader(self: Any) -> "DataLoader[Any]":
        micro, pieces = self._train_batch_size, self.args.gradient_accumulation_steps
        order = self.order(lengths(self.train_dataset), micro * pieces * distributed.world())
        rows = self._remove_unused_columns(self.train_dataset, "training")
        return Loader(
            Marked(rows),
            batch_sampler=Shares(order, micro, distributed.rank(), distributed.world()),
            collate_fn=counted(self.data_collator),
            pin_memory=self.args.dataloader_pin_memory,
        )

    def get_batch_samples(self: Any, *given: Any) -> Any:
        """The pieces of a step; how many rows of each count is put aside."""
        batches, items = super().get_batch_samples(*given)  # type: ignore[misc]
        self.waiting = [batch.pop(REAL) for batch in batches]
        self.pieces = len(batches)
        self.rows_in_step, *self.in_step = distributed.summed([sum(self.waiting), *map(sum, self.counts(batches))])
        return batches, items

    def counts(self, batches: list[Any]) -> list[list[float]]:
        """What else is to be summed over all pieces and processes; the sums are in `in_step`."""
        return []

    def training_step(self: Any, *given: Any, **named: Any) -> Any:
        self.rows_now = self.waiting.pop(0)
        is_even = self.rows_in_step % (self.pieces * distributed.world()) == 0
        with nullcontext() if is_even else uneven(self.accelerator):
            return super().training_step(*given, **named)  # type: ignore[misc]

    def weight(self: Any) -> float:
        """What the mean over a piece's rows counts."""
        return self.part(self.rows_now, self.rows_in_step)

    def part(self: Any, own: float, whole: float) -> float:
        """What a piece's mean over so many of all things in the step counts; measuring takes it as it is."""
        return own / whole * self.pieces * distributed.world() if self.model.training else 1.0


@contextmanager
def uneven(accelerator: Any) -> Iterator[None]:
    """Let a trainer gather, for its curves, what is not as long on every process."""

    def gather(mine: Tensor) -> Tensor:
        return torch.cat([other.reshape(-1, *other.shape[1:]) for other in distributed.gathered(mine.cpu())]).to(mine)

    accelerator.gather = accelerator.gather_for_metrics = gather
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics


class Loader(DataLoader[Any]):
    """A loader that hands the epoch on to what orders its rows."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; the trainer calls this."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


def counted(collate: Callable[[list[Any]], Any]) -> Callable[[list[tuple[Any, bool]]], Any]:
    """Collate marked rows and say how many count; no token of one that does not is learned."""

    def marked(rows: list[tuple[Any, bool]]) -> Any:
        batch = collate([row for row, _ in rows])
        batch[REAL] = sum(real for _, real in rows)
        if not batch[REAL] and "labels" in batch:
            batch["labels"].fill_(-100)
        return batch

    return marked


def lengths(rows: Any) -> list[int]:
    """The number of tokens of each row, in all its columns of token ids."""
    import pyarrow.compute as pc

    table = rows.with_format("arrow")[:]
    ids = [pc.list_value_length(table[name]) for name in table.column_names if name.endswith(("ids", "labels"))]
    return [sum(row) for row in zip(*(column.to_pylist() for column in ids), strict=True)]
