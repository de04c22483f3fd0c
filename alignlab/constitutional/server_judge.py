"""A stronger model behind a server that speaks OpenAI's protocol, as the critic and the judge of Constitutional AI.

Nothing is made up where the server gives no sense: an answer without a verdict keeps its place, a pair without one
gets no label. What was judged is written down at once, so that a run that stops goes on from there.
"""

import json
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from alignlab.chat import Turn
from alignlab.config.constitution import Constitution
from alignlab.config.judge import OpenaiJudge, Server
from alignlab.judges import model_logprobs, protocol
from alignlab.judges.chat_server import Openai
from alignlab.judges.label import found, label_all
from alignlab.judges.model_logprobs import Verdict
from alignlab.judges.protocol import Labelled, Unlabelled
from alignlab.models.chat_client import Asker, Nonsense, Unanswered
from alignlab.models.sampling import Completion
from alignlab.runtime.journal import Journal

TEXT = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
ASKED = "\n\nAnswer with one JSON object of this form: {}"


class Principled(NamedTuple):
    """A judge behind a server that ranks by the principle that an item names as its kind."""

    settings: OpenaiJudge
    constitution: Constitution
    seed: int

    def label(self, items: Sequence[protocol.Item], done: Container[str]) -> Iterator[Labelled | Unlabelled]:
        """Judge the items that are not done, principle by principle."""
        for principle in self.constitution.principles:
            criteria = {
                principle.name: f"{principle.critique_request} Of the best answer one would say: {principle.good}"
            }
            own = [item for item in items if item.kind == principle.name]
            yield from Openai(self.settings.model_copy(update={"criteria": criteria}), self.seed).label(own, done)


def verdicts(
    judge: Principled, pairs: Sequence[model_logprobs.Item], clamp: tuple[float, float], record: Path, name: str
) -> list[Verdict | None]:
    """Judge pairs, each by its principle; None where the server gave no sense. `name` tells these from other pairs."""
    items = [
        protocol.Item(f"{name} {place}", pair.prompt, [pair.first, pair.second], [True, True], pair.principle.name)
        for place, pair in enumerate(pairs)
    ]
    journal = Journal(record)
    label_all(judge, items, journal)
    said = {labels.id: verdict(labels, clamp) for labels in found(journal, items)}
    return [said.get(item.id) for item in items]


def verdict(labels: Labelled, clamp: tuple[float, float]) -> Verdict:
    """Ranks of two answers as probabilities that the first is better: 1, 0, or a half where they are equal."""
    shares: dict[int, list[float]] = {0: [], 1: []}
    for reading in labels.readings:
        first, second = reading.shown.index(0), reading.shown.index(1)
        for ranks in reading.ranks.values():
            shares[reading.shown[0]].append(
                0.5 + (ranks[first] < ranks[second]) / 2 - (ranks[first] > ranks[second]) / 2
            )
    label = fmean(shares[0] + shares[1])
    one, other = (fmean(said) if said else label for said in shares.values())
    return Verdict(min(max(label, clamp[0]), clamp[1]), one, other)


def liked(judge: Principled, record: Path) -> Callable[[Sequence[model_logprobs.Item], str], list[bool]]:
    """What says of pairs whether the first answer is liked no less; where the server gave no sense, it is not."""

    def said(pairs: Sequence[model_logprobs.Item], name: str) -> list[bool]:
        return [one is not None and one.label >= 0.5 for one in verdicts(judge, pairs, (0.0, 1.0), record, name)]

    return said


def writer(settings: Server) -> Callable[[Sequence[Sequence[Turn]]], list[Completion]]:
    """What lets a server answer conversations, several at once; one without an answer counts as unfinished."""

    def one(asker: Asker, turns: Sequence[Turn]) -> Completion:
        *before, last = turns
        form = ASKED.format(json.dumps({"text": "…"}, ensure_ascii=False))
        try:
            told = asker.ask([*before, {**last, "content": last["content"] + form}], TEXT, text_in).told
        except Unanswered:
            return Completion("", False, ())
        return Completion(told, True, ())

    def write(requests: Sequence[Sequence[Turn]]) -> list[Completion]:
        asker = Asker(settings, "judge")
        with ThreadPoolExecutor(settings.concurrency) as pool:
            return list(pool.map(lambda turns: one(asker, turns), requests))

    return write


def text_in(value: Any) -> str:
    """The text of an answer; raises `Nonsense` where it holds none."""
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise Nonsense("text is missing")
    return text.strip()
