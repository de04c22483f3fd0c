"""The consensus of several labelers on each item, and the quality of each labeler.

Every reading becomes a vote on each two answers that it shows. A labeler who has seen two answers in both orders and
prefers each once has no vote. From the votes a consensus gives a probability for each two answers of an item, and an
order of all its answers. Position bias is the share of comparisons in which the answer shown earlier is preferred.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from math import sqrt
from typing import Literal, NamedTuple

from alignlab.judges.protocol import Labelled, Reading
from alignlab.preferences.consensus import Labeler, Vote, bradley_terry, dawid_skene, majority

Method = Literal["dawid_skene", "majority", "borda", "bradley_terry"]
Pair = tuple[int, int]


class Ranked(NamedTuple):
    """The consensus on an item."""

    order: list[int]  # the places of its answers, best first
    pairs: dict[Pair, float]  # the probability that the first of two is better, for places i < j


class Bias(NamedTuple):
    """The comparisons of a labeler by which answer was preferred: the one shown earlier, the later one, or neither."""

    earlier: int
    later: int
    ties: int

    @property
    def share(self) -> float | None:
        """Return the share of the earlier one without ties; 0.5 means no bias, None that there are only ties."""
        decided = self.earlier + self.later
        return self.earlier / decided if decided else None


def rank_sums(reading: Reading, weights: Mapping[str, float]) -> dict[int, float]:
    """Return each answer's weighted sum of ranks over the criteria, by its place in the item; less is better."""
    by_criterion = {name: weights.get(name, 0.0) if weights else 1.0 for name in reading.ranks}
    if not any(by_criterion.values()):
        by_criterion = dict.fromkeys(by_criterion, 1.0)
    return {
        place: sum(weight * reading.ranks[name][at] for name, weight in by_criterion.items())
        for at, place in enumerate(reading.shown)
    }


def sign(first: float, second: float) -> int:
    """Return 1 where the first number is greater, -1 where the second is, 0 where they are equal."""
    return (first > second) - (first < second)


def leads(labels: Labelled, weights: Mapping[str, float]) -> dict[str, dict[Pair, float]]:
    """Return for each labeler and two answers i < j by how much the readings prefer i, weighed by their certainty."""
    by_labeler: dict[str, dict[Pair, float]] = defaultdict(lambda: defaultdict(float))
    for reading in labels.readings:
        sums = rank_sums(reading, weights)
        for i, j in combinations(sorted(sums), 2):
            by_labeler[reading.labeler][i, j] += reading.sure * sign(sums[j], sums[i])
    return by_labeler


def votes(labels: Iterable[Labelled], weights: Mapping[str, float]) -> list[Vote]:
    """Return the votes of every labeler on every two answers; a tie is no vote."""
    return [
        Vote(f"{item.id}/{i}-{j}", labeler, lead > 0)
        for item in labels
        for labeler, pairs in leads(item, weights).items()
        for (i, j), lead in pairs.items()
        if lead
    ]


def rank_items(
    labels: Sequence[Labelled], sizes: Mapping[str, int], method: Method, weights: Mapping[str, float]
) -> dict[str, Ranked]:
    """Return the consensus on each item by its id; `sizes` holds how many answers it has."""
    if method == "bradley_terry":
        return {item.id: by_bradley_terry(item, sizes[item.id], weights) for item in labels}
    if method == "borda":
        return {item.id: by_borda(item, sizes[item.id], weights) for item in labels}
    all_votes = votes(labels, weights)
    several = len({vote.labeler for vote in all_votes}) > 1
    shares = dawid_skene(all_votes).labels if method == "dawid_skene" and several else majority(all_votes)
    return {item.id: by_shares(item.id, sizes[item.id], shares) for item in labels}


def by_shares(item: str, size: int, shares: Mapping[str, float]) -> Ranked:
    """Order an item's answers by the sum of their probabilities of being better than another."""
    pairs = {(i, j): shares.get(f"{item}/{i}-{j}", 0.5) for i, j in pairs_of(size)}
    wins = [0.0] * size
    for (i, j), share in pairs.items():
        wins[i] += share
        wins[j] += 1 - share
    return Ranked(best_first(wins), pairs)


def by_borda(labels: Labelled, size: int, weights: Mapping[str, float]) -> Ranked:
    """Order by Borda's count: one point for each answer that a labeler likes less, half a point for an equal one.

    The probability of two is 0, 1/2 or 1, since the count is an order only.
    """
    points = [0.0] * size
    for leads_of_labeler in leads(labels, weights).values():
        for (i, j), lead in leads_of_labeler.items():
            points[i] += 0.5 + 0.5 * sign(lead, 0)
            points[j] += 0.5 - 0.5 * sign(lead, 0)
    pairs = {(i, j): 0.5 + 0.5 * sign(points[i], points[j]) for i, j in pairs_of(size)}
    return Ranked(best_first(points), pairs)


def by_bradley_terry(labels: Labelled, size: int, weights: Mapping[str, float]) -> Ranked:
    """Order by Bradley and Terry's strengths; half a win of each answer over each other keeps all above 0."""
    won = [
        (i, j) if lead > 0 else (j, i)
        for leads_of_labeler in leads(labels, weights).values()
        for (i, j), lead in leads_of_labeler.items()
        if lead
    ]
    both = [pair for i, j in pairs_of(size) for pair in ((i, j), (j, i))]
    strengths = bradley_terry([(str(better), str(worse)) for better, worse in [*won, *won, *both]])
    pairs = {(i, j): strengths[str(i)] / (strengths[str(i)] + strengths[str(j)]) for i, j in pairs_of(size)}
    return Ranked(best_first([strengths[str(place)] for place in range(size)]), pairs)


def pairs_of(size: int) -> Iterator[Pair]:
    """Return every two places i < j of an item's answers."""
    return combinations(range(size), 2)


def best_first(values: Sequence[float]) -> list[int]:
    """Return the places of values, the highest first; equal ones in their order."""
    return sorted(range(len(values)), key=lambda place: -values[place])


def biases(labels: Iterable[Labelled], weights: Mapping[str, float]) -> dict[str, Bias]:
    """Return the position bias of each labeler, over all comparisons in the readings."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for item in labels:
        for reading in item.readings:
            sums = rank_sums(reading, weights)
            for first, second in combinations(reading.shown, 2):
                better, worse = sums[first] < sums[second], sums[first] > sums[second]
                counts[reading.labeler][0 if better else 1 if worse else 2] += 1
    return {labeler: Bias(*count) for labeler, count in counts.items()}


def consistency(labels: Iterable[Labelled], weights: Mapping[str, float]) -> dict[str, tuple[int, int]]:
    """Return for each labeler how many comparisons were repeated, and how many of them had the same result."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for item in labels:
        results: dict[tuple[str, Pair], list[int]] = defaultdict(list)
        for reading in item.readings:
            sums = rank_sums(reading, weights)
            for i, j in combinations(sorted(sums), 2):
                results[reading.labeler, (i, j)].append(sign(sums[j], sums[i]))
        for (labeler, _), signs in results.items():
            counts[labeler][0] += len(signs) > 1
            counts[labeler][1] += len(signs) > 1 and len(set(signs)) == 1
    return {labeler: (repeated, same) for labeler, (repeated, same) in counts.items()}


def tau_b(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Kendall's tau-b of two orders by their leads on every two answers; None where one has only ties."""
    signs = [(sign(first, 0), sign(second, 0)) for first, second in pairs]
    decided = sqrt(sum(first != 0 for first, _ in signs) * sum(second != 0 for _, second in signs))
    return sum(first * second for first, second in signs) / decided if decided else None


def labelers(labels: Sequence[Labelled], weights: Mapping[str, float]) -> dict[str, Labeler]:
    """Estimate each labeler's reliability and bias by their agreement; empty for a single labeler."""
    all_votes = votes(labels, weights)
    return dawid_skene(all_votes).labelers if len({vote.labeler for vote in all_votes}) > 1 else {}


def pair_agreement(
    first: Sequence[Labelled], second: Sequence[Labelled], weights: Mapping[str, float]
) -> tuple[int, int]:
    """Count the pairs that two sets of labels both decide by majority, and those of them on which they agree."""
    ours, theirs = (majority(votes(labels, weights)) for labels in (first, second))
    both = [pair for pair in ours if pair in theirs and ours[pair] != 0.5 and theirs[pair] != 0.5]
    return len(both), sum((ours[pair] > 0.5) == (theirs[pair] > 0.5) for pair in both)
