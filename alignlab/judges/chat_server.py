"""A chat model behind a server as the judge: it ranks answers by several criteria, and says why.

Answers are shown under letters, in an order by lot: all of an item at once, or two by two; and again in the reverse
order, so that a liking for what stands first shows, and cancels. Several items are asked for at once. An item of
which any request comes to nothing stays without a label; after several such items in a row the run stops, and what was
labelled until then is kept.
"""

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import combinations, islice
from random import Random
from string import ascii_uppercase
from time import monotonic
from typing import Any

from alignlab.chat import Turn
from alignlab.config.judge import OpenaiJudge
from alignlab.errors import Explained, failure
from alignlab.judges.protocol import Item, Labelled, Reading, Spent, Unlabelled
from alignlab.models.chat_client import Asked, Asker, Nonsense, Unanswered, Used


class Openai:
    """A judge behind a server."""

    def __init__(self, settings: OpenaiJudge, seed: int) -> None:
        self.settings, self.seed = settings, seed
        self.asker = Asker(settings, "judge")

    def label(self, items: Sequence[Item], done: Container[str]) -> Iterator[Labelled | Unlabelled]:
        """Judge the items that are not done, several at once, in the order in which the answers come."""
        left = iter([item for item in items if item.id not in done])
        missed, stopped = 0, None
        self.asker.stop.clear()
        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            running = {pool.submit(self.judged, item) for item in islice(left, self.settings.concurrency)}
            try:
                while running:
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    for one in finished:
                        try:
                            found = one.result()
                        except Explained as error:
                            stopped = stopped or error
                            continue
                        missed = missed + 1 if isinstance(found, Unlabelled) else 0
                        yield found
                        if isinstance(found, Unlabelled) and missed >= self.settings.give_up_after:
                            stopped = stopped or self.given_up(missed, found.why)
                    if stopped:
                        self.asker.stop.set()  # no further tries; what is under way may still come in
                    else:
                        running |= self.more(pool, left, len(finished))
            finally:
                self.asker.stop.set()
                pool.shutdown(cancel_futures=True)
        if stopped:
            raise stopped

    def more(self, pool: ThreadPoolExecutor, left: Iterator[Item], count: int) -> "set[Future[Labelled | Unlabelled]]":
        """Begin with some more items."""
        return {pool.submit(self.judged, item) for item in islice(left, count)}

    def given_up(self, missed: int, why: str) -> Explained:
        """Make the failure of a server that is no use."""
        what = f"{missed} prompts in a row got no label from {self.settings.url}: {why}"
        return failure("judge", what, "what was labelled is kept: mend it, and the same command goes on from there")

    def judged(self, item: Item) -> Labelled | Unlabelled:
        """Judge one item by all its readings, or none."""
        began, readings = monotonic(), []
        spent = Spent(again={})
        for shown in orders(item, self.settings, self.seed):
            try:
                asked = self.rank(item, shown)
            except Unanswered as error:
                return Unlabelled(item.id, str(error), added(spent, error.used, monotonic() - began))
            readings.append(asked.told)
            spent = added(spent, asked.used, monotonic() - began)
        return Labelled(item.id, readings, spent)

    def rank(self, item: Item, shown: list[int]) -> Asked[Reading]:
        """Ask for the ranks of an item's answers in one order."""

        def understood(value: Any) -> Reading:
            return read(value, shown, self.settings)

        return self.asker.ask(question(item, shown, self.settings), schema(len(shown), self.settings), understood)


def added(spent: Spent, used: Used, seconds: float) -> Spent:
    """What was spent on an item, with one more reading; `seconds` since it was begun."""
    again = Counter(spent.again) + used.again
    return Spent(spent.read + used.read, spent.written + used.written, seconds, dict(again))


def orders(item: Item, settings: OpenaiJudge, seed: int) -> Iterator[list[int]]:
    """The orders in which an item's answers are shown: by lot, then the reverse, then by lot again."""
    random, size = Random(f"{seed} {item.id}"), len(item.answers)
    groups = [list(range(size))] if settings.compare == "lists" else [list(two) for two in combinations(range(size), 2)]
    for group in groups:
        shown = random.sample(group, len(group))
        for number in range(settings.orders):
            yield shown
            shown = shown[::-1] if number % 2 == 0 else random.sample(group, len(group))


def question(item: Item, shown: Sequence[int], settings: OpenaiJudge) -> list[Turn]:
    """The request to rank some answers, as a conversation."""
    talk = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in item.prompt)
    letters = ascii_uppercase[: len(shown)]
    answers = "\n\n".join(
        f"<answer {letter}>\n{item.answers[place]}\n</answer {letter}>"
        for letter, place in zip(letters, shown, strict=True)
    )
    criteria = "\n".join(f"- {name}: {text}" for name, text in settings.criteria.items())
    asked = "\n\n".join(
        [
            f"<conversation>\n{talk}\n</conversation>",
            answers,
            f"Rank the answers from 1 (best) to {len(shown)} by each criterion:\n{criteria}",
            f"Answer with one JSON object of this form, with every letter of {', '.join(letters)}:\n{form(settings)}",
        ]
    )
    return [{"role": "system", "content": settings.instructions}, {"role": "user", "content": asked}]


def form(settings: OpenaiJudge) -> str:
    """The form of an answer in words."""
    reason = '"reason": "…", ' if settings.reasons else ""
    ranks = ", ".join(f'"{name}": {{{reason}"rank": 1}}' for name in settings.criteria)
    return f'{{"A": {{{ranks}}}, …}}'


def schema(size: int, settings: OpenaiJudge) -> dict[str, Any]:
    """The form of an answer as a JSON schema."""
    reason = {"reason": {"type": "string"}} if settings.reasons else {}
    rank = closed({**reason, "rank": {"type": "integer", "enum": list(range(1, size + 1))}})
    one = closed(dict.fromkeys(settings.criteria, rank))
    return closed(dict.fromkeys(ascii_uppercase[:size], one))


def closed(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object with these properties, all of them, and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def read(value: Any, shown: list[int], settings: OpenaiJudge) -> Reading:
    """An answer as a reading; raises `Nonsense` where a rank is missing or is none from 1 to the number of answers."""
    letters = ascii_uppercase[: len(shown)]
    found: dict[str, list[int]] = {name: [] for name in settings.criteria}
    reasons = []
    for letter in letters:
        own = value.get(letter) if isinstance(value, dict) else None
        if not isinstance(own, dict):
            raise Nonsense(f"answer {letter} is not ranked")
        for name in settings.criteria:
            said = own.get(name)
            rank = said.get("rank") if isinstance(said, dict) else said
            if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= len(shown):
                raise Nonsense(f"the rank of answer {letter} for {name} is no whole number from 1 to {len(shown)}")
            found[name].append(rank)
        reasons.append(
            " ".join(str(said["reason"]) for said in own.values() if isinstance(said, dict) and "reason" in said)
        )
    return Reading(settings.model, list(shown), found, reasons)
