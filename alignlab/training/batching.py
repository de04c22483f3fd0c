"""Batches of rows of about the same length: less padding, the same rows.

`Buckets` makes whole steps of like rows. `Pieces` leaves to chance which rows make a step, as the trainers' own order
does, and only lays them out so that the pieces in which a step is computed hold like rows.

`Shares` parts the steps of either among processes, each of which computes its share in pieces.

Every epoch shuffles the rows anew from the seed and the epoch's number alone, so that an interrupted run goes on
with the very batches that it would have seen.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

POOL = 50  # batches' worth of shuffled rows that are sorted together


class Buckets(Sampler[int]):
    """An order of rows in which each batch in a row holds rows of similar length, and batches come shuffled."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next; the trainer calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        dice = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        pools = torch.split(torch.randperm(len(self), generator=dice), POOL * self.batch_size)
        batches = [batch for pool in pools for batch in torch.split(self.by_length(pool), self.batch_size)]
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        order = [whole[i] for i in torch.randperm(len(whole), generator=dice)] + rest
        return iter(torch.cat(order).tolist() if order else [])

    def by_length(self, rows: Tensor) -> Tensor:
        """Sort rows by length; rows of one length keep their order."""
        return rows[self.lengths[rows].argsort(stable=True)]


class Pieces(Buckets):
    """An order of rows in which the rows of each batch, drawn at random, stand by length."""

    def __iter__(self) -> Iterator[int]:
        dice = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        steps = torch.split(torch.randperm(len(self), generator=dice), self.batch_size)
        return iter(torch.cat([self.by_length(step) for step in steps]).tolist())


class Shares(Sampler[list[int]]):
    """The pieces of one process, in order: each step's rows are parted among all, in `micro` rows at once at most.

    The last step of an epoch may be smaller than the others. Where it has fewer rows than there are processes, those
    without one get a stand-in, which counts nothing: row n is then given as -1 - n.
    """

    def __init__(self, order: Buckets, micro: int, rank: int, world: int) -> None:
        self.order, self.micro, self.rank, self.world = order, micro, rank, world

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        self.order.set_epoch(epoch)

    def pieces(self, rows: int) -> int:
        """In how many pieces each process computes a step of so many rows."""
        return -(-rows // (self.micro * self.world))

    def __len__(self) -> int:
        whole, rest = divmod(len(self.order), self.order.batch_size)
        return whole * self.pieces(self.order.batch_size) + self.pieces(rest)

    def __iter__(self) -> Iterator[list[int]]:
        rows = list(self.order)
        for start in range(0, len(rows), self.order.batch_size):
            step = rows[start : start + self.order.batch_size]
            parts = self.parts(step)
            yield from (part or [-1 - step[0]] for part in parts[self.rank :: self.world])

    def parts(self, step: list[int]) -> list[list[int]]:
        """Cut a step: as large as may be in one process, else as even as may be."""
        if self.world == 1:
            return [step[i : i + self.micro] for i in range(0, len(step), self.micro)]
        count = self.pieces(len(step)) * self.world
        ends = [round(i * len(step) / count) for i in range(count + 1)]
        return [step[a:b] for a, b in pairwise(ends)]


class Marked(Dataset[tuple[dict[str, Any], bool]]):
    """Rows with the word whether they count: those at -1 - n are stand-ins."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[dict[str, Any], bool]:
        return self.rows[place if place >= 0 else -1 - place], place >= 0
