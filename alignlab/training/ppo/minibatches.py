"""Which rows a rollout and its optimizer steps take.

The seed and the numbers of rollout, epoch and row decide it, so a resumed run takes the rows of an uninterrupted one.
"""

from collections.abc import Iterator, Sequence

import torch


def rollout_rows(total: int, size: int, number: int, seed: int) -> list[int]:
    """Return the rows of a rollout: the next `size` of an endless list of passes, each a permutation of all rows."""
    rows: list[int] = []
    start = number * size
    while len(rows) < size:
        number_of_pass, offset = divmod(start + len(rows), total)
        order = permutation(total, mix_seeds(seed, number_of_pass, 7))
        rows += order[offset : offset + size - len(rows)]
    return rows


def minibatches(
    size: int, count: int, micro_batches: int, lengths: Sequence[int], seed: Sequence[int]
) -> list[list[list[int]]]:
    """Split rows at random into `count` minibatches, and each by length into `micro_batches` micro-batches."""
    return [
        list(split(sorted(minibatch, key=lambda row: (lengths[row], row)), micro_batches))
        for minibatch in split(permutation(size, mix_seeds(*seed)), count)
    ]


def permutation(size: int, seed: int) -> list[int]:
    """Return the numbers below `size` in an order that depends on the seed alone."""
    order: list[int] = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


def split(rows: list[int], count: int) -> Iterator[list[int]]:
    """Yield `count` parts of a list; their sizes differ by at most one."""
    size, remainder = divmod(len(rows), count)
    start = 0
    for number in range(count):
        end = start + size + (number < remainder)
        yield rows[start:end]
        start = end


def mix_seeds(*numbers: int) -> int:
    """Return one seed below 2^63 from several numbers; different numbers give different seeds."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (2**63 - 25)
    return seed
