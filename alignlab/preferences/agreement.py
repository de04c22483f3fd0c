"""What several labelers agree on, item by item, and what their words are worth.

Every reading becomes a vote on each two answers that it shows; a labeler who has seen two answers in both orders and
prefers each once has no vote. From the votes a consensus gives a probability for each two answers of an item, and an
order of all its answers. Position bias is read off the readings themselves: how often what stands first is preferred.
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
    """An item's answers, best first, and the probability that the first of two is better, for places i < j."""

    order: list[int]
    pairs: dict[Pair, float]


class Bias(NamedTuple):
    """How often the answer that was shown earlier was preferred, of all comparisons that were no tie."""

    earlier: int
    later: int
    ties: int

    @property
    def share(self) -> float | None:
        """The share for the earlier one; who does not look at places comes to a half."""
        decided = self.earlier + self.later
        return self.earlier / decided if decided else None


def worth(reading: Reading, weights: Mapping[str, float]) -> dict[int, float]:
    """Each answer's mean rank over the criteria by their weights, by its place in the item; less is better."""
    own = {name: weights.get(name, 0.0) if weights else 1.0 for name in reading.ranks}
    if not any(own.values()):
        own = dict.fromkeys(own, 1.0)
    return {
        place: sum(weight * reading.ranks[name][at] for name, weight in own.items())
        for at, place in enumerate(reading.shown)
    }


def preferences(labels: Labelled, weights: Mapping[str, float]) -> dict[str, dict[Pair, float]]:
    """For each labeler and two answers i < j, how much more the readings prefer i than j, each as far as it is sure."""
    found: dict[str, dict[Pair, float]] = defaultdict(lambda: defaultdict(float))
    for reading in labels.readings:
        values = worth(reading, weights)
        for i, j in combinations(sorted(values), 2):
            found[reading.labeler][i, j] += reading.sure * ((values[i] < values[j]) - (values[i] > values[j]))
    return found


def votes(found: Iterable[Labelled], weights: Mapping[str, float]) -> list[Vote]:
    """The votes of every labeler on every two answers; a tie is no vote."""
    return [
        Vote(f"{labels.id}/{i}-{j}", labeler, lead > 0)
        for labels in found
        for labeler, own in preferences(labels, weights).items()
        for (i, j), lead in own.items()
        if lead
    ]


def agreed(
    found: Sequence[Labelled], sizes: Mapping[str, int], method: Method, weights: Mapping[str, float]
) -> dict[str, Ranked]:
    """The consensus on each item; `sizes` says how many answers it has."""
    said = votes(found, weights)
    if method == "bradley_terry":
        return {labels.id: by_strength(labels, sizes[labels.id], weights) for labels in found}
    if method == "borda":
        return {labels.id: by_places(labels, sizes[labels.id], weights) for labels in found}
    several = len({vote.labeler for vote in said}) > 1
    shares = dawid_skene(said).labels if method == "dawid_skene" and several else majority(said)
    return {labels.id: ordered(labels.id, sizes[labels.id], shares) for labels in found}


def ordered(item: str, size: int, shares: Mapping[str, float]) -> Ranked:
    """An item's answers by how many others each is probably better than."""
    pairs = {(i, j): shares.get(f"{item}/{i}-{j}", 0.5) for i, j in combinations(range(size), 2)}
    wins = [0.0] * size
    for (i, j), share in pairs.items():
        wins[i] += share
        wins[j] += 1 - share
    return Ranked(sorted(range(size), key=lambda place: -wins[place]), pairs)


def by_places(labels: Labelled, size: int, weights: Mapping[str, float]) -> Ranked:
    """Borda's count: an answer gets a point for each that a labeler likes less, half of one for each that is as good.

    The probability of two is 0, 1/2 or 1: the count knows an order and no more.
    """
    points = [0.0] * size
    for own in preferences(labels, weights).values():
        for (i, j), lead in own.items():
            points[i] += 0.5 + 0.5 * ((lead > 0) - (lead < 0))
            points[j] += 0.5 - 0.5 * ((lead > 0) - (lead < 0))
    pairs = {(i, j): 0.5 + 0.5 * ((points[i] > points[j]) - (points[i] < points[j])) for i, j in pairs_of(size)}
    return Ranked(sorted(range(size), key=lambda place: -points[place]), pairs)


def by_strength(labels: Labelled, size: int, weights: Mapping[str, float]) -> Ranked:
    """Strengths by Bradley and Terry; each answer gets half a win over each other besides, so that none is worth 0."""
    won = [
        (i, j) if lead > 0 else (j, i)
        for own in preferences(labels, weights).values()
        for (i, j), lead in own.items()
        if lead
    ]
    both = [pair for i, j in pairs_of(size) for pair in ((i, j), (j, i))]
    strengths = bradley_terry([(str(better), str(worse)) for better, worse in [*won, *won, *both]])
    pairs = {(i, j): strengths[str(i)] / (strengths[str(i)] + strengths[str(j)]) for i, j in pairs_of(size)}
    return Ranked(sorted(range(size), key=lambda place: -strengths[str(place)]), pairs)


def pairs_of(size: int) -> Iterator[Pair]:
    """Every two of an item's answers."""
    return combinations(range(size), 2)


def biases(found: Iterable[Labelled], weights: Mapping[str, float]) -> dict[str, Bias]:
    """The position bias of each labeler, over all readings in which two answers were shown."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for labels in found:
        for reading in labels.readings:
            values = worth(reading, weights)
            for first, second in combinations(reading.shown, 2):
                better, worse = values[first] < values[second], values[first] > values[second]
                counts[reading.labeler][0 if better else 1 if worse else 2] += 1
    return {labeler: Bias(*own) for labeler, own in counts.items()}


def steadiness(found: Iterable[Labelled], weights: Mapping[str, float]) -> dict[str, tuple[int, int]]:
    """For each labeler, how many comparisons were made more than once, and how many of them came out the same."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for labels in found:
        seen: dict[tuple[str, Pair], list[int]] = defaultdict(list)
        for reading in labels.readings:
            values = worth(reading, weights)
            for i, j in combinations(sorted(values), 2):
                seen[reading.labeler, (i, j)].append((values[i] < values[j]) - (values[i] > values[j]))
        for (labeler, _), said in seen.items():
            counts[labeler][0] += len(said) > 1
            counts[labeler][1] += len(said) > 1 and len(set(said)) == 1
    return {labeler: (own[0], own[1]) for labeler, own in counts.items()}


def tau_b(leads: Sequence[tuple[float, float]]) -> float | None:
    """Kendall's tau-b of two orders, from how each leans on every two answers; None where one of them only has ties."""
    signs = [((one > 0) - (one < 0), (other > 0) - (other < 0)) for one, other in leads]
    decided = sqrt(sum(one != 0 for one, _ in signs) * sum(other != 0 for _, other in signs))
    return sum(one * other for one, other in signs) / decided if decided else None


def labelers(found: Sequence[Labelled], weights: Mapping[str, float]) -> dict[str, Labeler]:
    """How far each of several labelers is to be trusted, by their agreement; nothing is known of one alone."""
    said = votes(found, weights)
    return dawid_skene(said).labelers if len({vote.labeler for vote in said}) > 1 else {}


def same(found: Sequence[Labelled], others: Sequence[Labelled], weights: Mapping[str, float]) -> tuple[int, int]:
    """How many pairs two sets of labels both decide by majority, and on how many of them they agree."""
    mine, theirs = (majority(votes(labels, weights)) for labels in (found, others))
    both = [item for item in mine if item in theirs and mine[item] != 0.5 and theirs[item] != 0.5]
    return len(both), sum((mine[item] > 0.5) == (theirs[item] > 0.5) for item in both)
