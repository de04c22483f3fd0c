"""Simulated annotators of the pocket world: each puts two answers in the right order as often as he is reliable.

They are the one place from which labels may look at the world's truth. Two answers that the world holds equal have no
right order, and get equal ranks. What an annotator says of two answers depends on the seed, the item and himself alone.
"""

from collections.abc import Container, Iterator, Sequence
from itertools import combinations
from random import Random
from typing import NamedTuple

from alignlab.config.judge import AnnotatorsJudge
from alignlab.judges.protocol import BETTER, Item, Labelled, Reading
from alignlab.pocket.gold import judge


class Annotators(NamedTuple):
    """Annotators who compare every two answers of an item."""

    settings: AnnotatorsJudge

    def label(self, items: Sequence[Item], done: Container[str]) -> Iterator[Labelled]:
        """Compare the answers of every item."""
        for item in items:
            if item.id not in done:
                scores = [judge(item.prompt, *answer).score for answer in zip(item.answers, item.finished, strict=True)]
                both = [self.compared(item.id, scores, *two) for two in combinations(range(len(scores)), 2)]
                yield Labelled(item.id, [reading for readings in both for reading in readings])

    def compared(self, item: str, scores: Sequence[float], i: int, j: int) -> Iterator[Reading]:
        """What every annotator says of two answers, shown in an order by lot."""
        for number, reliability in enumerate(self.settings.reliabilities):
            random = Random(f"{self.settings.seed} {number} {item} {i} {j}")
            right = random.random() < reliability
            first = scores[i] == scores[j] or (scores[i] > scores[j]) == right
            second = scores[i] == scores[j] or not first
            shown = random.sample((i, j), 2)
            ranks = [1 if {i: first, j: second}[place] else 2 for place in shown]
            yield Reading(f"annotator {number + 1}", shown, {BETTER: ranks}, [])
