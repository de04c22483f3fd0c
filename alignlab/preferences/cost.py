"""What labels cost, beside people's: tokens, money and minutes for each item, and what is saved.

A label is an item ranked, whatever it takes. Only a label that says what people say saves the price of theirs: of what
would be saved if every label were right, as much counts as the pairs on which both agree, where both have labelled.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from alignlab.config.judge import HumanJudge, OpenaiJudge
from alignlab.config.preferences import Preferences
from alignlab.judges.protocol import Labelled, Spent, Unlabelled


class Cost(NamedTuple):
    """What a judge's labels cost, in all: `seconds` are those that they were waited for, `again` further tries."""

    labels: int
    read: int
    written: int
    again: dict[str, int]
    money: float
    seconds: float

    @property
    def price(self) -> float:
        """Money a label."""
        return self.money / max(1, self.labels)

    @property
    def minutes(self) -> float:
        """Minutes a label."""
        return self.seconds / 60 / max(1, self.labels)


class Saving(NamedTuple):
    """What is saved of people's price: if every label were right, and as far as labels are known to be.

    `pairs` is how many pairs both have decided, `agree` on how many they agree. `counted` is None where there are none.
    """

    at_most: float
    pairs: int
    agree: int
    counted: float | None


def cost(found: Sequence[Labelled], missing: Sequence[Unlabelled], settings: Preferences) -> Cost:
    """Add up what was spent on labels, and in vain on items that got none."""
    spent = [one.spent for one in found] + [one.spent for one in missing]
    again = sum((Counter(one.again) for one in spent), Counter[str]())
    read, written = sum(one.read for one in spent), sum(one.written for one in spent)
    money, seconds = paid(found, spent, settings)
    return Cost(len(found), read, written, dict(again), money, seconds)


def paid(found: Sequence[Labelled], spent: Sequence[Spent], settings: Preferences) -> tuple[float, float]:
    """Money and seconds: by the tokens' prices, by people's, or by what the machine costs."""
    seconds = sum(one.seconds for one in spent)
    if isinstance(settings.judge, HumanJudge):
        own = len({(labels.id, reading.labeler) for labels in found for reading in labels.readings})
        return own * settings.people.price, own * settings.people.minutes * 60
    if isinstance(settings.judge, OpenaiJudge):
        read, written = settings.judge.price_read, settings.judge.price_written
        return sum(one.read * read + one.written * written for one in spent) / 1e6, seconds
    return seconds / 3600 * settings.machine_hour, seconds


def saving(spent: Cost, settings: Preferences, pairs: int, agree: int) -> Saving:
    """Hold a judge's price against people's, by the pairs that both have decided and those on which they agree."""
    share = spent.price / settings.people.price
    return Saving(1 - share, pairs, agree, agree / pairs - share if pairs else None)
