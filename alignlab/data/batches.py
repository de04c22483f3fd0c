"""Batches of rows of about the same length: less padding, the same rows.

`Buckets` makes whole steps of like rows. `Pieces` leaves to chance which rows make a step, as the trainers' own order
does, and only lays them out so that the pieces in which a step is computed hold like rows.

Every epoch shuffles the rows anew from the seed and the epoch's number alone, so that an interrupted run goes on
with the very batches that it would have seen.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import Sampler

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
