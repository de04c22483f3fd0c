"""Critique and revision: a model's answers, criticised and written again under principles drawn at random.

A revision takes the place of what it revises, or does so only where a judge likes it no less: then what was good
stays, and every round helps as far as the judge sees. Every step is kept. What is unfit to learn from is dropped at
the end, and the record says which filter dropped it.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.chat import Turn
from alignlab.config.constitution import Constitution, Principle
from alignlab.judges.model_logprobs import Item, criticised
from alignlab.models.log_probs import summed_log_probs
from alignlab.models.sampling import Completion, Sampling, sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PREAMBLE = re.compile(
    r"\A\s*(sure|certainly|of course|okay|here)\b[^.!?\n]*\b(revis|rewrit|better)\w*[^.!?\n]*:\s*", re.I
)
APOLOGY = re.compile(r"\W*(i\s+am|i'm|we\s+are)?\s*(very\s+|so\s+)?(sorry|apologi[sz]e|my apologies)\W*", re.I)


class Step(NamedTuple):
    """One round: the principle, what the critique said, what was written, and whether it took the place of the rest.

    `praised` says that the critique found nothing wrong.
    """

    principle: str
    critique: str
    praised: bool
    revision: str
    finished: bool
    accepted: bool = True


class Revised(NamedTuple):
    """A prompt, the first answer and its revisions; `dropped` names the filter that left it out."""

    row: dict[str, Any]
    answer: Completion
    steps: list[Step]
    dropped: str | None = None

    def record(self) -> dict[str, Any]:
        """All of it as plain values."""
        kept: dict[str, Any] = {name: self.row[name] for name in ("id", "kind", "prompt") if name in self.row}
        first = {"answer": self.answer.text, "finished": self.answer.finished}
        return {**kept, **first, "steps": [step._asdict() for step in self.steps], "dropped": self.dropped}


class Critic(NamedTuple):
    """A model that criticises and revises, and how it draws.

    `liked` says of pairs whether the first answer is liked no less; without it every revision is accepted. `write`
    answers requests in the model's stead, such as a stronger one behind a server.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    constitution: Constitution
    sampling: Sampling
    seed: int
    liked: Callable[[Sequence[Item], str], Sequence[bool]] | None = None
    write: Callable[[Sequence[Sequence[Turn]]], list[Completion]] | None = None

    def revise(self, rows: Sequence[dict[str, Any]], answers: Sequence[Completion], rounds: int) -> list[Revised]:
        """Criticise and revise each answer so many times."""
        found = [Revised(row, answer, []) for row, answer in zip(rows, answers, strict=True)]
        for number in range(rounds):
            principles = self.constitution.drawn(len(found), f"{self.seed} {number}")
            requests = [
                criticised(self.constitution, item.row["prompt"], latest(item), principle)
                for item, principle in zip(found, principles, strict=True)
            ]
            critiques = self.say(requests, 2 * number)
            better = self.say(list(map(revision_asked, requests, critiques, principles)), 2 * number + 1)
            steps = [told(*said) for said in zip(principles, critiques, better, strict=True)]
            taken = self.accepted(found, steps, principles, number)
            for item, step, accepted in zip(found, steps, taken, strict=True):
                item.steps.append(step._replace(accepted=accepted))
        return found

    def accepted(
        self, items: Sequence[Revised], steps: Sequence[Step], principles: Sequence[Principle], number: int
    ) -> list[bool]:
        """Which steps take the place of what they revise: all, or those that are sound and liked no less."""
        if self.liked is None:
            return [True] * len(items)
        pairs = [
            Item(item.row["prompt"], step.revision, latest(item), principle)
            for item, step, principle in zip(items, steps, principles, strict=True)
        ]
        differ = [place for place, pair in enumerate(pairs) if sound(steps[place]) and pair.first != pair.second]
        said = self.liked([pairs[place] for place in differ], f"round {number}")
        taken = {place for place, liked in zip(differ, said, strict=True) if liked}
        return [place in taken for place in range(len(items))]

    def say(self, requests: Sequence[Sequence[Turn]], turn: int) -> list[Completion]:
        """Answer requests, with luck of its own for every turn."""
        if self.write is not None:
            return self.write(requests)
        return sample(self.model, self.tokenizer, requests, self.sampling, 1000 * (self.seed + 1) + turn)

    def filtered(self, items: Sequence[Revised], off_topic: float) -> list[Revised]:
        """Name the filter that drops each item, if one does."""
        prompts = [item.row["prompt"] for item in items]
        texts = [latest(item) for item in items]
        size = self.sampling.batch_size
        own = summed_log_probs(self.model, self.tokenizer, prompts, texts, size)
        other = summed_log_probs(self.model, self.tokenizer, [*prompts[1:], *prompts[:1]], texts, size)
        return [
            item._replace(dropped=fault(item, mine - theirs < -off_topic))
            for item, mine, theirs in zip(items, own, other, strict=True)
        ]


def latest(item: Revised) -> str:
    """The newest version of an answer that was accepted."""
    return next((step.revision for step in reversed(item.steps) if step.accepted), item.answer.text)


def revision_asked(request: list[Turn], critique: Completion, principle: Principle) -> list[Turn]:
    """A conversation in which, after its critique, an answer is to be written again."""
    return [
        *request,
        {"role": "assistant", "content": critique.text},
        {"role": "user", "content": principle.revision_request},
    ]


def told(principle: Principle, critique: Completion, better: Completion) -> Step:
    """One round as it is recorded; words about the revision are no part of it."""
    praised = critique.text.startswith(principle.good)
    revision = PREAMBLE.sub("", better.text, count=1).strip()
    return Step(principle.name, critique.text, praised, revision, better.finished)


def sound(step: Step) -> bool:
    """Whether a revision came to its end and says anything but that it is sorry."""
    return step.finished and bool(step.revision) and not APOLOGY.fullmatch(step.revision)


def fault(item: Revised, strays: bool) -> str | None:
    """The first filter that an item does not pass: unfinished, empty, same or off_topic."""
    text = latest(item)
    taken = [step for step in item.steps if step.accepted]
    if not taken:
        return "same"
    if not taken[-1].finished:
        return "unfinished"
    if not text or APOLOGY.fullmatch(text):
        return "empty"
    if text == item.answer.text:
        return "same"
    return "off_topic" if strays else None
