"""A judge who goes by a score: whatever `reward=` names, the answer with more of it is the better one."""

from collections.abc import Container, Iterator, Sequence
from time import monotonic
from typing import NamedTuple, Protocol

from alignlab.chat import Turn
from alignlab.judges.protocol import BETTER, Item, Labelled, Reading, Spent, ranks


class Scorer(Protocol):
    """What a reward offers (`alignlab.rewards.protocol`)."""

    def score(
        self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]
    ) -> list[float]: ...


class Scored(NamedTuple):
    """A judge made of a reward; items are scored in batches that are always the same."""

    name: str
    reward: Scorer
    batch_size: int

    def label(self, items: Sequence[Item], done: Container[str]) -> Iterator[Labelled]:
        """Rank the answers of every item by their scores."""
        for start in range(0, len(items), self.batch_size):
            batch = items[start : start + self.batch_size]
            if any(item.id not in done for item in batch):
                yield from self.batch(batch)

    def batch(self, items: Sequence[Item]) -> Iterator[Labelled]:
        """Rank the answers of some items; they share the time that it takes."""
        began = monotonic()
        prompts = [item.prompt for item in items for _ in item.answers]
        texts = [text for item in items for text in item.answers]
        ended = [end for item in items for end in item.finished]
        scores = iter(self.reward.score(prompts, texts, ended))
        found = [ranks([next(scores) for _ in item.answers]) for item in items]
        seconds = (monotonic() - began) / len(items)
        for item, own in zip(items, found, strict=True):
            reading = Reading(self.name, list(range(len(own))), {BETTER: own}, [])
            yield Labelled(item.id, [reading], Spent(seconds=seconds))
