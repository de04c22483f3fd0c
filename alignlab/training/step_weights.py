"""Optimizer steps that are the same on any hardware: which rows a step has, and the weight of each.

Processes share the rows of a step, and each computes its share in micro-batches. The Trainer averages over processes
and micro-batches, which is the mean over rows only if all have as many. In the last step of an epoch they may not, so
the mean of a micro-batch is weighted by its rows. The Trainer itself takes means over tokens (`num_items_in_batch`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from alignlab.runtime import distributed
from alignlab.training.batching import Buckets, MicroBatches, RealRows, ShuffledSteps

REAL = "real_rows"  # the number of a micro-batch's rows that are no placeholders


class StepWeights:
    """A trainer whose steps have `batch_size` rows over all processes, sorted by length within a step."""

    waiting: list[int]  # real rows of each micro-batch of the step that is still to be computed
    micro_batches = 0  # of this process in the step
    rows_now = 0  # real rows of the current micro-batch
    rows_in_step = 0  # real rows of the step, over all micro-batches and processes
    in_step: list[float]  # the sums of `counts`, over all micro-batches and processes

    def order(self: Any, lengths: list[int], batch_size: int) -> Buckets:
        """Return the order of rows; here the rows of a step are drawn at random."""
        return ShuffledSteps(lengths, batch_size, self.args.seed)

    def real_rows(self, rows: Any, order: Buckets) -> RealRows:
        """Return the rows that the data loader reads, by their numbers in the order."""
        return RealRows(rows)

    def get_train_dataloader(self: Any) -> "DataLoader[Any]":
        size, count = self._train_batch_size, self.args.gradient_accumulation_steps
        order = self.order(lengths(self.train_dataset), size * count * distributed.world_size())
        rows = self._remove_unused_columns(self.train_dataset, "training")
        return EpochLoader(
            self.real_rows(rows, order),
            batch_sampler=MicroBatches(order, size, distributed.rank(), distributed.world_size()),
            collate_fn=count_real(self.data_collator),
            pin_memory=self.args.dataloader_pin_memory,
        )

    def get_batch_samples(self: Any, *args: Any) -> Any:
        """Return the micro-batches of a step; their real rows are counted over all processes."""
        batches, items = super().get_batch_samples(*args)  # type: ignore[misc]
        self.waiting = [batch.pop(REAL) for batch in batches]
        self.micro_batches = len(batches)
        self.rows_in_step, *self.in_step = distributed.all_reduce_sum(
            [sum(self.waiting), *map(sum, self.counts(batches))]
        )
        return batches, items

    def counts(self, batches: list[Any]) -> list[list[float]]:
        """Return lists of one number a micro-batch; the sum of each over the step is put into `in_step`."""
        return []

    def training_step(self: Any, *args: Any, **options: Any) -> Any:
        self.rows_now = self.waiting.pop(0)
        is_even = self.rows_in_step % (self.micro_batches * distributed.world_size()) == 0
        with nullcontext() if is_even else gather_any_length(self.accelerator):
            return super().training_step(*args, **options)  # type: ignore[misc]

    def weight(self: Any) -> float:
        """Return the weight of the current micro-batch's mean over rows."""
        return self.share(self.rows_now, self.rows_in_step)

    def share(self: Any, part: float, whole: float) -> float:
        """Return the weight of a micro-batch's mean over `part` of the step's `whole` things; 1 in evaluation."""
        return part / whole * self.micro_batches * distributed.world_size() if self.model.training else 1.0


def with_step_weights(trainer_class: type[Any]) -> type[Any]:
    """Return a trainer class with the steps of `StepWeights`."""
    return type(trainer_class.__name__, (StepWeights, trainer_class), {})


@contextmanager
def gather_any_length(accelerator: Any) -> Iterator[None]:
    """Let a trainer gather tensors of different lengths, for its metrics, inside the block."""

    def gather(mine: Tensor) -> Tensor:
        return torch.cat([other.reshape(-1, *other.shape[1:]) for other in distributed.all_gather(mine.cpu())]).to(mine)

    accelerator.gather = accelerator.gather_for_metrics = gather
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics


class EpochLoader(DataLoader[Any]):
    """A data loader that tells its batch sampler the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; the Trainer calls this."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


def count_real(collate: Callable[[list[Any]], Any]) -> Callable[[list[tuple[Any, bool]]], Any]:
    """Make a collator for rows of `RealRows`: it counts the real ones, and drops the labels of placeholders."""

    def collate_and_count(rows: list[tuple[Any, bool]]) -> Any:
        batch = collate([row for row, _ in rows])
        batch[REAL] = sum(real for _, real in rows)
        if not batch[REAL] and "labels" in batch:
            batch["labels"].fill_(-100)
        return batch

    return collate_and_count


def lengths(rows: Any) -> list[int]:
    """Return the number of tokens of each row, over all its columns of token ids."""
    import pyarrow.compute as pc

    table = rows.with_format("arrow")[:]
    ids = [pc.list_value_length(table[name]) for name in table.column_names if name.endswith(("ids", "labels"))]
    return [sum(row) for row in zip(*(column.to_pylist() for column in ids), strict=True)]
