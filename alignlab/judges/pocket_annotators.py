"""Simulated annotators of the pocket world: each ranks two answers correctly as often as they are reliable.

They are the only judge that may read the world's truth. Two answers of equal worth get equal ranks. An annotator's
reading of two answers depends on the seed, the item and the annotator alone.
"""

from collections.abc import Container, Iterator, Sequence
from itertools import combinations
from random import Random
from typing import NamedTuple

from alignlab.config.judge import AnnotatorsJudge
from alignlab.judges.protocol import BETTER, Context, Item, Labelled, Reading
from alignlab.pocket.gold import judge


class Annotators(NamedTuple):
    """Annotators who compare every two answers of an item."""

    reliabilities: Sequence[float]
    seed: int

    def label(self, items: Sequence[Item], done: Container[str]) -> Iterator[Labelled]:
        """Compare the answers of every item."""
        for item in items:
            if item.id not in done:
                scores = [judge(item.prompt, *answer).score for answer in zip(item.answers, item.finished, strict=True)]
                both = [self.readings(item.id, scores, *two) for two in combinations(range(len(scores)), 2)]
                yield Labelled(item.id, [reading for readings in both for reading in readings])

    def readings(self, item: str, scores: Sequence[float], i: int, j: int) -> Iterator[Reading]:
        """Yield every annotator's reading of two answers, shown in a random order."""
        for number, reliability in enumerate(self.reliabilities):
            random = Random(f"{self.seed} {number} {item} {i} {j}")
            right = random.random() < reliability
            first = scores[i] == scores[j] or (scores[i] > scores[j]) == right
            second = scores[i] == scores[j] or not first
            shown = random.sample((i, j), 2)
            ranks = [1 if {i: first, j: second}[place] else 2 for place in shown]
            yield Reading(f"annotator {number + 1}", shown, {BETTER: ranks}, [])


def load(settings: AnnotatorsJudge, context: Context) -> Annotators:
    """Return the annotators; without a seed of their own they take the command's."""
    return Annotators(settings.reliabilities, context.seed if settings.seed is None else settings.seed)
