"""Critique and revision: a model's answers, criticised and revised under principles drawn at random.

A revision replaces what it revises: always, or only where a judge likes it no less. Every step is recorded. Answers
that are unfit to learn from are dropped at the end, and the record names the filter that dropped them.
"""

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.chat import Turn
from alignlab.config.constitution import Constitution, Principle
from alignlab.judges.model_logprobs import critique_request
from alignlab.judges.protocol import Item
from alignlab.models.log_probs import summed_log_probs
from alignlab.models.sampling import Completion, Sampling, sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PREAMBLE = re.compile(
    r"\A\s*(sure|certainly|of course|okay|here)\b[^.!?\n]*\b(revis|rewrit|better)\w*[^.!?\n]*:\s*", re.I
)
APOLOGY = re.compile(r"\W*(i\s+am|i'm|we\s+are)?\s*(very\s+|so\s+)?(sorry|apologi[sz]e|my apologies)\W*", re.I)


class Step(NamedTuple):
    """One round of critique and revision."""

    principle: str
    critique: str
    praised: bool  # the critique found nothing wrong
    revision: str
    finished: bool  # the revision ended by itself
    accepted: bool = True  # the revision replaced what it revises


class Revised(NamedTuple):
    """A prompt's row, the first answer, its revisions, and the filter that dropped it, if one did."""

    row: dict[str, Any]
    answer: Completion
    steps: list[Step]
    dropped: str | None = None

    def record(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        kept: dict[str, Any] = {name: self.row[name] for name in ("id", "kind", "prompt") if name in self.row}
        first = {"answer": self.answer.text, "finished": self.answer.finished}
        return {**kept, **first, "steps": [step._asdict() for step in self.steps], "dropped": self.dropped}


class Critic(NamedTuple):
    """A model that criticises and revises."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    constitution: Constitution
    sampling: Sampling
    seed: int
    # says of each item of two answers whether the first is liked no less; None accepts every revision
    likes_first: Callable[[Sequence[Item]], Sequence[bool]] | None = None
    # answers requests instead of the model, such as a stronger one behind a server
    write: Callable[[Sequence[Sequence[Turn]]], list[Completion]] | None = None

    def revise(self, rows: Sequence[dict[str, Any]], answers: Sequence[Completion], rounds: int) -> list[Revised]:
        """Criticise and revise each answer for some rounds."""
        revised = [Revised(row, answer, []) for row, answer in zip(rows, answers, strict=True)]
        for number in range(rounds):
            principles = self.constitution.draw(len(revised), f"{self.seed} {number}")
            requests = [
                critique_request(self.constitution, answered.row["prompt"], latest(answered), principle)
                for answered, principle in zip(revised, principles, strict=True)
            ]
            critiques = self.answer(requests, 2 * number)
            revisions = self.answer(list(map(revision_request, requests, critiques, principles)), 2 * number + 1)
            steps = list(map(step_of, principles, critiques, revisions))
            accepted = self.accepted(revised, steps, principles, number)
            for answered, step, taken in zip(revised, steps, accepted, strict=True):
                answered.steps.append(step._replace(accepted=taken))
        return revised

    def accepted(
        self, revised: Sequence[Revised], steps: Sequence[Step], principles: Sequence[Principle], number: int
    ) -> list[bool]:
        """Return which revisions are accepted: all, or those that are sound and liked no less."""
        if self.likes_first is None:
            return [True] * len(revised)
        answers = [[step.revision, latest(answered)] for answered, step in zip(revised, steps, strict=True)]
        places = [place for place, two in enumerate(answers) if sound(steps[place]) and two[0] != two[1]]
        items = [
            Item(
                f"round {number} {count}",
                revised[place].row["prompt"],
                answers[place],
                [True, True],
                principle=principles[place],
            )
            for count, place in enumerate(places)
        ]
        liked = {place for place, likes in zip(places, self.likes_first(items), strict=True) if likes}
        return [place in liked for place in range(len(revised))]

    def answer(self, requests: Sequence[Sequence[Turn]], turn: int) -> list[Completion]:
        """Answer requests; every turn of every round has its own random streams."""
        if self.write is not None:
            return self.write(requests)
        return sample(self.model, self.tokenizer, requests, self.sampling, 1000 * (self.seed + 1) + turn)

    def filtered(self, revised: Sequence[Revised], off_topic: float) -> list[Revised]:
        """Name the filter that drops each answer, if any filter does.

        An answer is off topic where it is likelier after another prompt than after its own, by so many nats.
        """
        prompts = [answered.row["prompt"] for answered in revised]
        texts = [latest(answered) for answered in revised]
        size = self.sampling.batch_size
        by_own_prompt = summed_log_probs(self.model, self.tokenizer, prompts, texts, size)
        by_other_prompt = summed_log_probs(self.model, self.tokenizer, [*prompts[1:], *prompts[:1]], texts, size)
        return [
            answered._replace(dropped=dropped_by(answered, after_own - after_other < -off_topic))
            for answered, after_own, after_other in zip(revised, by_own_prompt, by_other_prompt, strict=True)
        ]


def latest(revised: Revised) -> str:
    """Return the latest accepted version of an answer."""
    return next((step.revision for step in reversed(revised.steps) if step.accepted), revised.answer.text)


def revision_request(request: list[Turn], critique: Completion, principle: Principle) -> list[Turn]:
    """Return a conversation that asks for a revision of an answer after its critique."""
    return [
        *request,
        {"role": "assistant", "content": critique.text},
        {"role": "user", "content": principle.revision_request},
    ]


def step_of(principle: Principle, critique: Completion, revision: Completion) -> Step:
    """Return one round as it is recorded; words about the revision are removed from it."""
    praised = critique.text.startswith(principle.good)
    text = PREAMBLE.sub("", revision.text, count=1).strip()
    return Step(principle.name, critique.text, praised, text, revision.finished)


def sound(step: Step) -> bool:
    """Return whether a revision ended by itself and is more than an apology."""
    return step.finished and bool(step.revision) and not APOLOGY.fullmatch(step.revision)


def dropped_by(revised: Revised, off_topic: bool) -> str | None:
    """Return the first filter that an answer fails: unfinished, empty, same or off_topic; None if it passes all."""
    text = latest(revised)
    taken = [step for step in revised.steps if step.accepted]
    if not taken:
        return "same"
    if not taken[-1].finished:
        return "unfinished"
    if not text or APOLOGY.fullmatch(text):
        return "empty"
    if text == revised.answer.text:
        return "same"
    return "off_topic" if off_topic else None
