"""A language model as the judge of every two answers of an item, under principles of a constitution.

The asking is that of `alignlab.judges.model_logprobs`: by choice, in both orders, or by critiques. Each order is a
reading, and counts as much as the model's log-odds are sure. Items are asked in batches that are always the same.
"""

import math
from collections.abc import Container, Iterator, Sequence
from itertools import combinations
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from alignlab.config import judge
from alignlab.config.constitution import Constitution, Principle
from alignlab.judges import model_logprobs
from alignlab.judges.protocol import BETTER, Item, Labelled, Reading, Spent

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

AT_ONCE = 16  # items whose pairs are put into one list of requests


class Compared(NamedTuple):
    """A causal language model, what it compares by, and how."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    constitution: Constitution
    settings: judge.LocalJudge
    seed: int

    def label(self, items: Sequence[Item], done: Container[str]) -> Iterator[Labelled]:
        """Compare the answers of every item, two by two."""
        for start in range(0, len(items), AT_ONCE):
            batch = items[start : start + AT_ONCE]
            if any(item.id not in done for item in batch):
                yield from self.batch(batch)

    def batch(self, items: Sequence[Item]) -> Iterator[Labelled]:
        """Compare the answers of some items; they share the time that it takes."""
        began = monotonic()
        asked = [(item, places) for item in items for places in combinations(range(len(item.answers)), 2)]
        pairs = [
            model_logprobs.Item(item.prompt, item.answers[i], item.answers[j], self.principle(item, i, j))
            for item, (i, j) in asked
        ]
        settings = self.settings.model_copy(update={"spread": None, "clamp": (0.0, 1.0)})
        verdicts = model_logprobs.verdicts(self.model, self.tokenizer, pairs, self.constitution, settings)
        seconds = (monotonic() - began) / len(items)
        readings: dict[str, list[Reading]] = {item.id: [] for item in items}
        for (item, (i, j)), verdict in zip(asked, verdicts, strict=True):
            readings[item.id] += [reading([i, j], verdict.first), reading([j, i], 1 - verdict.second)]
        return (Labelled(name, own, Spent(seconds=seconds)) for name, own in readings.items())

    def principle(self, item: Item, i: int, j: int) -> Principle:
        """The principle that two answers are compared by: by lot, from the seed, the item and the two alone."""
        return self.constitution.drawn(1, f"{self.seed} {item.id} {i} {j}")[0]


def reading(shown: list[int], share: float) -> Reading:
    """A probability that the first of two is better, as ranks."""
    share = min(max(share, 1e-12), 1 - 1e-12)
    ranks = [1, 1] if share == 0.5 else [1, 2] if share > 0.5 else [2, 1]
    return Reading("model", shown, {BETTER: ranks}, [], round(abs(math.log(share / (1 - share))), 6))
