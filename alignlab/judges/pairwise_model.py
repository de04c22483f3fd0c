"""A language model as the judge of every two answers of an item, under principles of a constitution.

`alignlab.judges.model_logprobs` reads the verdicts. To rank several answers, each order of two becomes a reading whose
weight is the model's log-odds. The batches of items do not depend on what is labelled already.
"""

import math
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from alignlab.config.constitution import Constitution
from alignlab.config.judge import LocalJudge
from alignlab.judges import model_logprobs
from alignlab.judges.protocol import BETTER, Context, Item, Labelled, Reading, Spent, Verdict, pairs
from alignlab.models.load import load_policy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ITEMS = 16  # whose pairs are judged in one call


class PairwiseModel(NamedTuple):
    """A causal language model that compares two answers."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    constitution: Constitution
    settings: LocalJudge
    seed: int

    def compare(self, items: Sequence[Item], record: Path) -> list[Verdict]:
        """Judge every item by its principle; nothing is recorded, since it is quick to judge again."""
        return self.verdicts(items, self.settings)

    def label(self, items: Sequence[Item], done: Container[str]) -> Iterator[Labelled]:
        """Compare the answers of every item, two by two."""
        for start in range(0, len(items), ITEMS):
            batch = items[start : start + ITEMS]
            if any(item.id not in done for item in batch):
                yield from self.label_batch(batch)

    def label_batch(self, items: Sequence[Item]) -> Iterator[Labelled]:
        """Compare the answers of some items; the seconds that it takes are divided among them.

        The principle of two answers is drawn from the seed, the item and the two alone.
        """
        began = monotonic()
        unscaled = self.settings.model_copy(update={"spread": None, "clamp": (0.0, 1.0)})
        split = [pairs(item) for item in items]
        asked = [self.under_principle(pair) for by_places in split for pair in by_places.values()]
        verdicts = iter(self.verdicts(asked, unscaled))
        readings = [
            [reading for places in by_places for reading in both_readings(places, next(verdicts))]
            for by_places in split
        ]
        seconds = (monotonic() - began) / len(items)
        return (Labelled(item.id, looks, Spent(seconds=seconds)) for item, looks in zip(items, readings, strict=True))

    def under_principle(self, pair: Item) -> Item:
        """Return a pair with its principle."""
        return pair._replace(principle=self.constitution.draw(1, f"{self.seed} {pair.id}")[0])

    def verdicts(self, items: Sequence[Item], settings: LocalJudge) -> list[Verdict]:
        """Judge items of two answers."""
        return model_logprobs.verdicts(self.model, self.tokenizer, items, self.constitution, settings)


def both_readings(places: tuple[int, int], verdict: Verdict) -> list[Reading]:
    """Return a verdict on the answers at two places as two readings, one an order."""
    i, j = places
    return [reading([i, j], verdict.first), reading([j, i], 1 - verdict.second)]


def reading(shown: list[int], share: float) -> Reading:
    """Return the probability that the first of two is better as ranks, weighed by its log-odds."""
    share = min(max(share, 1e-12), 1 - 1e-12)
    ranks = [1, 1] if share == 0.5 else [1, 2] if share > 0.5 else [2, 1]
    return Reading("model", shown, {BETTER: ranks}, [], round(abs(math.log(share / (1 - share))), 6))


def load(settings: LocalJudge, context: Context) -> PairwiseModel:
    """Load the judge model, unless the caller has."""
    model, tokenizer = context.model or load_policy(context.inputs["judge_model"], context.hardware)
    return PairwiseModel(model, tokenizer, context.constitution, settings, context.seed)
