"""The protocol of judges: answers to a prompt in, ranks or probabilities out.

An item is a prompt and several answers to it. `Judge.label` ranks the answers: it looks at an item once or more often,
and each look is a `Reading`, with the answers in the order in which they were shown, and their ranks by each criterion
(1 is the best; equal answers have equal ranks). A judge of pairs gives readings of two answers, a judge of lists
readings of all. `PairJudge.compare` gives the probability that the first of an item's two answers is the better one
under the item's principle.

No label is invented for an item that could not be judged: it is returned as `Unlabelled`, with the reason.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from alignlab.chat import Turn
from alignlab.config.constitution import Constitution, Principle
from alignlab.config.dataset import DataSet
from alignlab.config.hardware import Hardware
from alignlab.config.reward import RewardSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignlab.models.answers import Answer

BETTER = "better"  # the criterion of a judge that has only one


class Item(NamedTuple):
    """A prompt and the answers to be compared."""

    id: str
    prompt: list[Turn]
    answers: list[str]
    finished: list[bool]  # of each answer: whether it ended by itself
    kind: str = ""  # the prompt's
    principle: Principle | None = None  # what a pair judge compares by


class Verdict(NamedTuple):
    """The probability that the first of two answers is better: the label, and with it shown first and second."""

    label: float
    first: float
    second: float

    def clamped(self, low: float, high: float) -> "Verdict":
        """Return the verdict with its label kept between two probabilities."""
        return self._replace(label=min(max(self.label, low), high))


class Reading(NamedTuple):
    """One look of one labeler at answers."""

    labeler: str
    shown: list[int]  # the answers' places in the item, in the order in which they were shown
    ranks: dict[str, list[int]]  # by criterion, in that order
    reasons: list[str]
    sure: float = 1.0  # the weight beside the same labeler's other readings


class Spent(NamedTuple):
    """The cost of labelling an item."""

    read: int = 0  # tokens
    written: int = 0  # tokens
    seconds: float = 0.0
    again: dict[str, int] | None = None  # retries by their reasons


class Labelled(NamedTuple):
    """An item that was judged."""

    id: str
    readings: list[Reading]
    spent: Spent = Spent()

    def row(self) -> dict[str, Any]:
        """Return the label as a row of a journal."""
        readings = [reading._asdict() for reading in self.readings]
        return {"id": self.id, "readings": readings, "spent": self.spent._asdict()}


class Unlabelled(NamedTuple):
    """An item that could not be judged, why, and what was spent on it."""

    id: str
    why: str
    spent: Spent = Spent()


class Judge(Protocol):
    """Ranks the answers of items."""

    def label(self, items: Sequence[Item], done: Container[str]) -> Iterator[Labelled | Unlabelled]:
        """Judge the items whose ids are not in `done`, in any order; others may be judged again along with them."""
        ...


class PairJudge(Judge, Protocol):
    """Compares two answers under a principle, too."""

    def compare(self, items: Sequence[Item], record: Path) -> Sequence[Verdict | None]:
        """Return the verdict on each item of two answers, by its principle; None where the judge gave none.

        `record` is a journal that a judge may keep, to resume from; ids must differ among all items recorded there.
        """
        ...


class Context(NamedTuple):
    """What a judge is loaded with besides its settings.

    seed: the command's
    hardware: where models run
    inputs: folders of models: `judge_model`, and those of the reward by their places
    constitution: the principles to judge by
    reward, dataset: the command's; for a judge that ranks by the reward
    model: the judge model and its tokenizer, where the caller has loaded them already
    """

    seed: int
    hardware: Hardware
    inputs: Mapping[str, Path]
    constitution: Constitution
    reward: RewardSettings | None = None
    dataset: DataSet | None = None
    model: "tuple[PreTrainedModel, PreTrainedTokenizerBase] | None" = None


def item_of(name: str, prompt: list[Turn], answers: "Sequence[Answer]", kind: str = "") -> Item:
    """Return the different answers to a prompt as an item."""
    return Item(name, prompt, [answer.text for answer in answers], [answer.finished for answer in answers], kind)


def pairs(item: Item) -> dict[tuple[int, int], Item]:
    """Return an item of two answers for every two answers of an item, by their places i < j."""
    return {
        (i, j): item._replace(
            id=f"{item.id} {i} {j}",
            answers=[item.answers[i], item.answers[j]],
            finished=[item.finished[i], item.finished[j]],
        )
        for i, j in combinations(range(len(item.answers)), 2)
    }


def labelled(row: Mapping[str, Any]) -> Labelled:
    """Return the label in a row of a journal."""
    return Labelled(row["id"], [Reading(**reading) for reading in row["readings"]], Spent(**row["spent"]))


def ranks(scores: Sequence[float]) -> list[int]:
    """Return ranks by scores, the highest first; equal scores share the better rank."""
    return [1 + sum(other > score for other in scores) for score in scores]
