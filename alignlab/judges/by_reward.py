"""A judge that ranks answers by the reward of the command (`reward=…`): the higher score is better."""

from collections.abc import Container, Iterator, Sequence
from time import monotonic
from typing import NamedTuple

from alignlab.config.judge import RewardJudge
from alignlab.judges.protocol import BETTER, Context, Item, Labelled, Reading, Spent, ranks
from alignlab.rewards import load_reward
from alignlab.rewards.protocol import Checked


class ByReward(NamedTuple):
    """A judge made of a reward; the batches of items do not depend on what is labelled already, nor do their scores.

    A reward with running statistics or weights of constraints scores each batch as it would score a first rollout.
    """

    name: str
    reward: Checked
    batch_size: int

    def label(self, items: Sequence[Item], done: Container[str]) -> Iterator[Labelled]:
        """Rank the answers of every item by their scores."""
        for start in range(0, len(items), self.batch_size):
            batch = items[start : start + self.batch_size]
            if any(item.id not in done for item in batch):
                yield from self.label_batch(batch)

    def label_batch(self, items: Sequence[Item]) -> Iterator[Labelled]:
        """Rank the answers of some items; the seconds that it takes are divided among them."""
        began = monotonic()
        prompts = [item.prompt for item in items for _ in item.answers]
        texts = [text for item in items for text in item.answers]
        ended = [end for item in items for end in item.finished]
        state = self.reward.state_dict()
        scores = iter(self.reward.score(prompts, texts, ended).total)
        self.reward.load_state_dict(state)
        ranked = [ranks([next(scores) for _ in item.answers]) for item in items]
        seconds = (monotonic() - began) / len(items)
        for item, places in zip(items, ranked, strict=True):
            reading = Reading(self.name, list(range(len(places))), {BETTER: places}, [])
            yield Labelled(item.id, [reading], Spent(seconds=seconds))


def load(settings: RewardJudge, context: Context) -> ByReward:
    """Load the reward of the command, and make a judge of it."""
    assert context.reward is not None
    reward = load_reward(context.reward, context.inputs, context.hardware, dataset=context.dataset)
    return ByReward(settings.name, reward, settings.batch_size)
