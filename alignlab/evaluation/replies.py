"""Items and replies: what a measurement asks of a model, and what the model answers.

An item asks for completions of a prompt, or for the score of each of some choices: their log-probabilities by a
language model, their rewards by a reward model. `ask` asks each question once. Replies are kept in the cache under
everything that decides them: the weights of the model, the sampling, the seed and the item. All measurements share
them, a killed evaluation resumes after its last batch, and more items later draw only what is new.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from alignlab.chat import Turn
from alignlab.evaluation.metrics import Record
from alignlab.runtime.files import cache_root, digest, locked
from alignlab.runtime.journal import Journal

if TYPE_CHECKING:
    from alignlab.models.sampling import Completion, Sampling

Prompt = Sequence[Turn] | str
Draw = tuple[str, int]  # an item's id and the number of its completion, which choose a random stream
VERSION = 1  # of the replies in the cache


class Item(NamedTuple):
    """A question to a model: `samples` completions of a prompt, or the scores of `choices` that follow it.

    A prompt is chat turns, or raw text that the model continues without a chat template. `ends` says, of all choices
    or of each, that a chat's choice ends the turn. `temperature` and `max_new_tokens` replace those of the evaluation.
    `cluster` joins items that are not independent (the id by default), and `facts` are what `score` needs to know: a
    label, a reference.
    """

    id: str
    prompt: Prompt
    kind: str = ""
    choices: tuple[str, ...] = ()
    samples: int = 1
    ends: bool | tuple[bool, ...] = True
    temperature: float | None = None
    max_new_tokens: int | None = None
    cluster: str = ""
    facts: Mapping[str, Any] = MappingProxyType({})

    @property
    def turns(self) -> list[Turn]:
        """Return the prompt as chat turns; raw text is a turn of the user."""
        return [{"role": "user", "content": self.prompt}] if isinstance(self.prompt, str) else list(self.prompt)


def ends_of(item: Item) -> tuple[bool, ...]:
    """Return for each choice of an item whether it ends the turn."""
    return item.ends if isinstance(item.ends, tuple) else (item.ends,) * len(item.choices)


class ChoiceScore(NamedTuple):
    """The score of a choice: a log-probability or a reward, over `tokens` tokens.

    `greedy` says that each token of the choice is the model's likeliest.
    """

    score: float
    tokens: int
    greedy: bool = False


class Reply(NamedTuple):
    """A model's reply to an item: its completions, or the scores of its choices."""

    item: Item
    completions: "tuple[Completion, ...]" = ()
    choices: tuple[ChoiceScore, ...] = ()

    @property
    def text(self) -> str:
        """Return the first completion."""
        return self.completions[0].text

    def record(self, values: Mapping[str, float], number: int = 0, shown: str | None = None) -> Record:
        """Return the record of the item, or of its completion of a number."""
        item = self.item
        text = shown if shown is not None else self.completions[number].text if self.completions else ""
        name = f"{item.id}#{number}" if number else item.id
        return Record(name, item.cluster or item.id, item.kind, values, text)


class Subject(Protocol):
    """A model that is asked; `scores_choices` says whether it can score choices."""

    scores_choices: bool

    @property
    def fingerprint(self) -> str:
        """Return a name of all that decides the model's replies."""

    def sample(
        self, items: Sequence[Item], draws: Sequence[Sequence[int]], sampling: "Sampling", seed: int
    ) -> "Iterator[dict[int, list[Completion]]]":
        """Yield batch by batch, by the item's place, its completions of the numbers in `draws`."""

    def score(self, items: Sequence[Item]) -> Iterator[dict[int, list[ChoiceScore]]]:
        """Yield batch by batch, by the item's place, the scores of its choices."""

    def release(self) -> None:
        """Free the memory of the model, which is loaded again when it is asked again."""


def ask(subject: Subject, items: Sequence[Item], sampling: "Sampling", seed: int) -> list[Reply]:
    """Return the replies to items, in their order; what the cache holds is not asked again."""
    scores = scored(subject, [item for item in items if item.choices])
    drawn: dict[str, tuple[Completion, ...]] = {}
    open_items = [item for item in items if not item.choices and item.samples]
    for how, group in groupby(sorted(open_items, key=sampling_key), key=sampling_key):
        drawn |= sampled(subject, list(group), override(sampling, *how), seed)
    return [Reply(item, drawn.get(item_key(item), ()), scores.get(item_key(item), ())) for item in items]


def sampling_key(item: Item) -> tuple[float, int]:
    """Return the sampling settings that an item replaces; -1 for those that it does not."""
    tokens = -1 if item.max_new_tokens is None else item.max_new_tokens
    return (-1.0 if item.temperature is None else item.temperature), tokens


def override(sampling: "Sampling", temperature: float, max_new_tokens: int) -> "Sampling":
    """Return the sampling with the settings of an item."""
    return sampling._replace(
        temperature=sampling.temperature if temperature < 0 else temperature,
        max_new_tokens=sampling.max_new_tokens if max_new_tokens < 0 else max_new_tokens,
    )


def scored(subject: Subject, items: Sequence[Item]) -> dict[str, tuple[ChoiceScore, ...]]:
    """Return the scores of choices by the items' keys; new ones are appended to the journal batch by batch."""
    if not items:
        return {}
    keyed = {item_key(item): item for item in items}
    with journal_of(subject, "choices") as journal:
        new = [item for key, item in keyed.items() if key not in journal.rows]
        for batch in subject.score(new) if new else ():
            journal.add({"id": item_key(new[place]), "choices": scores} for place, scores in batch.items())
    return {key: tuple(ChoiceScore(*score) for score in journal.rows[key]["choices"]) for key in keyed}


def sampled(
    subject: Subject, items: Sequence[Item], sampling: "Sampling", seed: int
) -> "dict[str, tuple[Completion, ...]]":
    """Return completions by the items' keys; new ones are appended to the journal batch by batch."""
    name = digest(sampling._asdict() | {"batch_size": None}, seed)
    with journal_of(subject, name) as journal:
        keyed = {item_key(item): item for item in items}
        missing = [
            (item, numbers)
            for item in keyed.values()
            if (numbers := [n for n in range(item.samples) if draw_key(item, n) not in journal.rows])
        ]
        for _, group in groupby(sorted(missing, key=lambda one: len(one[1])), lambda one: len(one[1])):
            same, draws = zip(*group, strict=True)
            for batch in subject.sample(same, draws, sampling, seed):
                journal.add(
                    {"id": draw_key(same[place], number), "text": one.text, "finished": one.finished, "ids": one.tokens}
                    for place, completions in batch.items()
                    for number, one in zip(draws[place], completions, strict=True)
                )
    return {
        key: tuple(completion(journal.rows[draw_key(item, number)]) for number in range(item.samples))
        for key, item in keyed.items()
    }


def completion(row: Mapping[str, Any]) -> "Completion":
    """Return a completion as the journal holds it."""
    from alignlab.models.sampling import Completion

    return Completion(row["text"], row["finished"], tuple(row["ids"]))


@contextmanager
def journal_of(subject: Subject, name: str) -> Iterator[Journal]:
    """Open the replies of a model in the cache; other processes that ask the same model wait until this one is done."""
    file = cache_root() / "replies" / f"{subject.fingerprint}-{VERSION}" / f"{name}.jsonl"
    with locked(file):
        yield Journal(file)


def item_key(item: Item) -> str:
    """Return the hash of all that an item asks."""
    return digest(item.id, asked(item.prompt), item.choices, item.samples, ends_of(item), *sampling_key(item))


def draw_key(item: Item, number: int) -> str:
    """Return the hash of an item's prompt and the number of its completion."""
    return digest(item.id, asked(item.prompt), number)


def asked(prompt: Prompt) -> str:
    """Return a prompt as text."""
    return prompt if isinstance(prompt, str) else json.dumps([[turn["role"], turn["content"]] for turn in prompt])


def prompt_hash(prompt: Prompt) -> str:
    """Return the hash of a prompt: the id of an item without another, and the cluster of rows with the same prompt."""
    return digest(asked(prompt))


def random_stream(item: Item, number: int) -> int:
    """Return the number of the random stream of an item's completion, below 2^63; it depends on the id alone."""
    return int(digest("stream", item.id, number), 16) >> 1
