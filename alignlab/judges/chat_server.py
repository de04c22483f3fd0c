"""A chat model behind a server as the judge: it ranks answers by several criteria, with reasons.

Answers are shown under letters in a random order, all of an item at once or two by two, and again in the reverse order,
so that a preference for the first place shows and cancels. Several items are asked for at once. An item stays without
a label when one of its requests gets no usable answer; after several such items in a row the run stops, and the labels
until then are kept.
"""

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import combinations, islice
from pathlib import Path
from random import Random
from statistics import fmean
from time import monotonic
from typing import Any

from alignlab.config.constitution import Constitution, Principle
from alignlab.config.judge import OpenaiJudge
from alignlab.errors import Explained, failure
from alignlab.judges.chat_ranking import question, read, schema
from alignlab.judges.label import label_all, labels_in
from alignlab.judges.protocol import Context, Item, Labelled, Reading, Spent, Unlabelled, Verdict
from alignlab.models.chat_client import Answered, ChatClient, NoAnswer, Usage
from alignlab.runtime import distributed
from alignlab.runtime.journal import Journal


class ChatServer:
    """A judge behind a server."""

    def __init__(self, settings: OpenaiJudge, constitution: Constitution, seed: int) -> None:
        self.settings, self.constitution, self.seed = settings, constitution, seed
        self.client = ChatClient(settings, "judge")

    def label(self, items: Sequence[Item], done: Container[str]) -> Iterator[Labelled | Unlabelled]:
        """Judge the items that are not done, several at once, in the order in which the answers arrive."""
        waiting = iter([item for item in items if item.id not in done])
        missed, stopped = 0, None
        self.client.stop.clear()
        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            running = self.start(pool, waiting, self.settings.concurrency)
            try:
                while running:
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        try:
                            result = future.result()
                        except Explained as error:
                            stopped = stopped or error
                            continue
                        missed = missed + 1 if isinstance(result, Unlabelled) else 0
                        yield result
                        if isinstance(result, Unlabelled) and missed >= self.settings.give_up_after:
                            stopped = stopped or self.given_up(missed, result.why)
                    if stopped:
                        self.client.stop.set()  # no more retries; requests under way may still be answered
                    else:
                        running |= self.start(pool, waiting, len(finished))
            finally:
                self.client.stop.set()
                pool.shutdown(cancel_futures=True)
        if stopped:
            raise stopped

    def start(
        self, pool: ThreadPoolExecutor, waiting: Iterator[Item], count: int
    ) -> "set[Future[Labelled | Unlabelled]]":
        """Start to judge so many more items."""
        return {pool.submit(self.label_item, item) for item in islice(waiting, count)}

    def given_up(self, missed: int, why: str) -> Explained:
        """Build the failure of a server that gives no usable answers."""
        what = f"{missed} prompts in a row got no label from {self.settings.url}: {why}"
        return failure("judge", what, "what was labelled is kept: mend it, and the same command goes on from there")

    def label_item(self, item: Item) -> Labelled | Unlabelled:
        """Judge one item by all its readings, or by none."""
        began, readings = monotonic(), []
        spent = Spent(again={})
        for shown in orders(item, self.settings, self.seed):
            try:
                asked = self.rank(item, shown)
            except NoAnswer as error:
                return Unlabelled(item.id, str(error), added(spent, error.usage, monotonic() - began))
            readings.append(asked.value)
            spent = added(spent, asked.usage, monotonic() - began)
        return Labelled(item.id, readings, spent)

    def rank(self, item: Item, shown: list[int]) -> Answered[Reading]:
        """Ask for the ranks of an item's answers in one order."""

        def understood(value: Any) -> Reading:
            return read(value, shown, self.settings)

        return self.client.ask(question(item, shown, self.settings), schema(len(shown), self.settings), understood)

    def compare(self, items: Sequence[Item], record: Path) -> Sequence[Verdict | None]:
        """Judge items of two answers, each by its principle; one process asks, and all return its verdicts."""
        verdicts = []
        if distributed.is_first():
            journal = Journal(record)
            label_all(UnderPrinciples(self), items, journal)
            known = {labels.id: verdict(labels) for labels in labels_in(journal, items)}
            verdicts = [known.get(item.id) for item in items]
        return distributed.all_gather(verdicts)[0]

    def under(self, principle: Principle) -> "ChatServer":
        """Return the judge with a principle as its only criterion."""
        text = f"{principle.critique_request} Of the best answer one would say: {principle.good}"
        settings = self.settings.model_copy(update={"criteria": {principle.name: text}})
        return ChatServer(settings, self.constitution, self.seed)


class UnderPrinciples:
    """A judge behind a server that ranks each item by its own principle."""

    def __init__(self, judge: ChatServer) -> None:
        self.judge = judge

    def label(self, items: Sequence[Item], done: Container[str]) -> Iterator[Labelled | Unlabelled]:
        """Judge the items that are not done, principle by principle."""
        for principle in self.judge.constitution.principles:
            yield from self.judge.under(principle).label([item for item in items if item.principle == principle], done)


def verdict(labels: Labelled) -> Verdict:
    """Return ranks of two answers as probabilities that the first is better: 1, 0, or a half where they are equal."""
    shares: dict[int, list[float]] = {0: [], 1: []}  # by the place of the answer that was shown first
    for reading in labels.readings:
        first, second = reading.shown.index(0), reading.shown.index(1)
        for ranks in reading.ranks.values():
            share = 0.5 + (ranks[first] < ranks[second]) / 2 - (ranks[first] > ranks[second]) / 2
            shares[reading.shown[0]].append(share)
    label = fmean(shares[0] + shares[1])
    shown_first, shown_second = (fmean(values) if values else label for values in shares.values())
    return Verdict(label, shown_first, shown_second)


def added(spent: Spent, used: Usage, seconds: float) -> Spent:
    """Return what was spent on an item with one more request; `seconds` count from its beginning."""
    again = Counter(spent.again) + used.retries
    return Spent(spent.read + used.read, spent.written + used.written, seconds, dict(again))


def orders(item: Item, settings: OpenaiJudge, seed: int) -> Iterator[list[int]]:
    """Yield the orders in which an item's answers are shown: a random one, its reverse, then another random one."""
    random, size = Random(f"{seed} {item.id}"), len(item.answers)
    groups = [list(range(size))] if settings.compare == "lists" else [list(two) for two in combinations(range(size), 2)]
    for group in groups:
        shown = random.sample(group, len(group))
        for number in range(settings.orders):
            yield shown
            shown = shown[::-1] if number % 2 == 0 else random.sample(group, len(group))


def load(settings: OpenaiJudge, context: Context) -> ChatServer:
    """Return the judge; the server is first asked when it judges."""
    return ChatServer(settings, context.constitution, context.seed)
