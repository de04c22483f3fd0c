"""The cost of labels beside people's: tokens, money and minutes for each item, and what is saved.

A label is an item ranked, whatever it takes. Only a right label saves the price of a person's: of the saving if every
label were right, the part counts in which judge and people agree, over the pairs that both have decided.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from alignlab.config.judge import Usage
from alignlab.config.preferences import Preferences
from alignlab.judges.protocol import Labelled, Unlabelled


class Cost(NamedTuple):
    """The cost of a judge's labels in all."""

    labels: int
    read: int  # tokens
    written: int  # tokens
    again: dict[str, int]  # retries by their reasons
    money: float
    seconds: float  # that the labels were waited for

    @property
    def price(self) -> float:
        """Return money a label."""
        return self.money / max(1, self.labels)

    @property
    def minutes(self) -> float:
        """Return minutes a label."""
        return self.seconds / 60 / max(1, self.labels)


class Saving(NamedTuple):
    """The share of people's price that a judge saves."""

    at_most: float  # if every label were right
    pairs: int  # that both judge and people have decided
    agree: int  # of them
    counted: float | None  # by the share of pairs on which they agree; None without such pairs


def cost(labels: Sequence[Labelled], missing: Sequence[Unlabelled], settings: Preferences) -> Cost:
    """Add up what was spent on labels, and on items that got none."""
    spent = [item.spent for item in labels] + [item.spent for item in missing]
    again = sum((Counter(cost.again) for cost in spent), Counter[str]())
    usage = Usage(
        labels=len({(item.id, reading.labeler) for item in labels for reading in item.readings}),
        read=sum(cost.read for cost in spent),
        written=sum(cost.written for cost in spent),
        seconds=sum(cost.seconds for cost in spent),
        person_price=settings.people.price,
        person_minutes=settings.people.minutes,
        machine_hour=settings.machine_hour,
    )
    money, seconds = settings.judge.money_and_seconds(usage)
    return Cost(len(labels), usage.read, usage.written, dict(again), money, seconds)


def saving(spent: Cost, settings: Preferences, pairs: int, agree: int) -> Saving:
    """Compare a judge's price with people's, by the pairs that both have decided and those on which they agree."""
    share = spent.price / settings.people.price
    return Saving(1 - share, pairs, agree, agree / pairs - share if pairs else None)
