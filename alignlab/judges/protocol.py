"""What a judge is: answers to a prompt in, ranks out.

An item is a prompt and several answers to it. A judge looks at them once or more often, and each look is a `Reading`:
which answers were shown in which order, and their ranks by each criterion, 1 the best, equal ranks where there is
nothing to choose. Who judges pairs gives readings of two, who judges lists readings of all.

Nothing is made up for an item that could not be judged: it comes back as `Unlabelled`, and says why.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from alignlab.chat import Turn

BETTER = "better"  # the criterion of a judge that knows only one


class Item(NamedTuple):
    """A prompt and the answers to be compared, and whether each came to its end by itself."""

    id: str
    prompt: list[Turn]
    answers: list[str]
    finished: list[bool]
    kind: str = ""


class Reading(NamedTuple):
    """One look of one labeler: the places of the answers as they were shown, and their ranks in that order.

    `sure` is what the look counts beside the same labeler's others.
    """

    labeler: str
    shown: list[int]
    ranks: dict[str, list[int]]
    reasons: list[str]
    sure: float = 1.0


class Spent(NamedTuple):
    """What labelling an item took: tokens read and written, seconds, and further tries by their reasons."""

    read: int = 0
    written: int = 0
    seconds: float = 0.0
    again: dict[str, int] | None = None


class Labelled(NamedTuple):
    """An item that was judged."""

    id: str
    readings: list[Reading]
    spent: Spent = Spent()

    def row(self) -> dict[str, Any]:
        """The label as a line of a journal."""
        readings = [reading._asdict() for reading in self.readings]
        return {"id": self.id, "readings": readings, "spent": self.spent._asdict()}


class Unlabelled(NamedTuple):
    """An item that could not be judged, why, and what was spent on it."""

    id: str
    why: str
    spent: Spent = Spent()


class Judge(Protocol):
    """Says which answers are better."""

    def label(self, items: Sequence[Item], done: Container[str]) -> Iterator[Labelled | Unlabelled]:
        """Judge the items whose ids are not in `done`, in any order; others may be judged again along with them."""
        ...


def labelled(row: Mapping[str, Any]) -> Labelled:
    """A line of a journal as a label."""
    return Labelled(row["id"], [Reading(**reading) for reading in row["readings"]], Spent(**row["spent"]))


def ranks(scores: Sequence[float]) -> list[int]:
    """Ranks by scores, the highest first; equal scores share the better rank."""
    return [1 + sum(other > score for other in scores) for score in scores]
