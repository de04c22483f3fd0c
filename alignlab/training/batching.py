"""Orders of rows with little padding, and how processes and micro-batches share the rows of a step.

`Buckets` makes optimizer steps of rows of similar length. `ShuffledSteps` draws the rows of a step at random, as the
Trainer's own order does, and only sorts them by length, so that a micro-batch holds rows of similar length.
`MicroBatches` splits the steps of either order among processes and micro-batches.

Every epoch shuffles the rows by the seed and the epoch's number alone, so a resumed run gets the batches of an
uninterrupted one.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

POOL = 50  # batches of shuffled rows that are sorted together


class Buckets(Sampler[int]):
    """An order of rows in which every `batch_size` neighbours are of similar length; the batches are shuffled."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next; the Trainer calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = self.generator()
        pools = torch.split(torch.randperm(len(self), generator=generator), POOL * self.batch_size)
        batches = [batch for pool in pools for batch in torch.split(self.by_length(pool), self.batch_size)]
        full = [batch for batch in batches if len(batch) == self.batch_size]
        smaller = [batch for batch in batches if len(batch) < self.batch_size]
        order = [full[i] for i in torch.randperm(len(full), generator=generator)] + smaller
        return iter(torch.cat(order).tolist() if order else [])

    def generator(self) -> torch.Generator:
        """Return the random generator of the epoch."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)

    def by_length(self, rows: Tensor) -> Tensor:
        """Sort rows by length; rows of one length keep their order."""
        return rows[self.lengths[rows].argsort(stable=True)]


class ShuffledSteps(Buckets):
    """An order of rows in which every `batch_size` neighbours are drawn at random and then sorted by length."""

    def __iter__(self) -> Iterator[int]:
        steps = torch.split(torch.randperm(len(self), generator=self.generator()), self.batch_size)
        return iter(torch.cat([self.by_length(step) for step in steps]).tolist())


class MicroBatches(Sampler[list[int]]):
    """The micro-batches of one process, in order: each has at most `size` rows of a step.

    The last step of an epoch may be smaller than the others. Where it has fewer rows than there are processes, the
    others get a placeholder that is not learned from: row n is then -1 - n.
    """

    def __init__(self, order: Buckets, size: int, rank: int, world: int) -> None:
        self.order, self.size, self.rank, self.world = order, size, rank, world

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.order.set_epoch(epoch)

    def count(self, rows: int) -> int:
        """Return the micro-batches of each process for a step of so many rows."""
        return -(-rows // (self.size * self.world))

    def __len__(self) -> int:
        full, remainder = divmod(len(self.order), self.order.batch_size)
        return full * self.count(self.order.batch_size) + self.count(remainder)

    def __iter__(self) -> Iterator[list[int]]:
        rows = list(self.order)
        for start in range(0, len(rows), self.order.batch_size):
            step = rows[start : start + self.order.batch_size]
            yield from (part or [-1 - step[0]] for part in self.split(step)[self.rank :: self.world])

    def split(self, step: list[int]) -> list[list[int]]:
        """Split a step: into full micro-batches in one process, else into parts of equal size up to one row."""
        if self.world == 1:
            return [step[i : i + self.size] for i in range(0, len(step), self.size)]
        count = self.count(len(step)) * self.world
        ends = [round(i * len(step) / count) for i in range(count + 1)]
        return [step[a:b] for a, b in pairwise(ends)]


class RealRows(Dataset[tuple[dict[str, Any], bool]]):
    """Rows with a flag that is False for placeholders, the rows at -1 - n."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[dict[str, Any], bool]:
        return self.rows[row if row >= 0 else -1 - row], row >= 0
