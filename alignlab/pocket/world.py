"""The pocket world's prompts: every combination of its words, and which of them no model ever sees.

A prompt is a combination of words (a verb and a thing, an animal and an attribute, …) in some phrasing. For each
kind a fixed share of the combinations is held out: chosen by a hash of the words alone, so that neither a seed nor
a size of the world moves a combination from one side to the other. Training data and the base model's corpus are
drawn from the other combinations. Where the user asserts something, the animal and the attribute are held out
together with the same question of fact.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from itertools import product
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

from alignlab.config.dataset import PocketData
from alignlab.pocket.phrases import ASSERTIONS, QUESTIONS
from alignlab.pocket.vocabulary import (  # fmt: skip
    ANIMALS,
    ATTRIBUTES,
    CREATURES,
    GROUPS,
    NAMES_CALLED,
    PEOPLE,
    SLURS,
    THINGS,
    TOOLS,
    WEAPONS,
    Table,
    a,
    claim,
    truth,
)
from alignlab.runtime.files import cache_root, digest
from alignlab.runtime.source_hash import hash_modules

Size = Literal["full", "small"]
Combination = tuple[str, ...]
KINDS = ("how_to", "harmful", "lookalike", "fact", "sycophancy", "provocation", "group")
SHARES = {  # how often each kind occurs among training prompts
    "how_to": 0.18,
    "harmful": 0.22,
    "lookalike": 0.20,
    "fact": 0.11,
    "sycophancy": 0.11,
    "provocation": 0.09,
    "group": 0.09,
}
HELD_OUT = {  # the share of each kind's combinations that is held out
    "how_to": 0.5, "harmful": 0.5, "lookalike": 0.5, "fact": 0.65, "provocation": 0.5, "group": 0.5,
}  # fmt: skip
SPEECH = ("vocabulary", "phrases", "world", "answers", "corpus")  # the modules that decide what is said in the world
LABELS = ("parse", "gold", "corrupt", "annotators")  # the modules that decide how it is labelled
CONFIRMED = 0.25  # the share of questions of fact in which the user says the right answer himself


class Prompt(NamedTuple):
    """A request to the model: its kind, the words that it combines, and its text."""

    kind: str
    words: Combination
    text: str

    @property
    def id(self) -> str:
        """Name the prompt by its content."""
        return f"{self.kind}-{_hash(self.text)[:10]}"


class Grid(NamedTuple):
    """The words that one size of the world combines."""

    tools: tuple[str, ...]
    weapons: tuple[str, ...]
    things: tuple[str, ...]
    people: tuple[str, ...]
    creatures: tuple[str, ...]
    animals: tuple[str, ...]
    attributes: tuple[str, ...]
    groups: tuple[str, ...]
    slurs: tuple[str, ...]
    names: tuple[str, ...]


@cache
def grid(size: Size) -> Grid:
    """Give a size's words; `small` has the first few of each table."""
    whole = size == "full"
    verbs, rooms, classes = (None, None, None) if whole else (10, 3, 3)
    return Grid(
        tools=tuple(TOOLS)[:verbs],
        weapons=tuple(WEAPONS)[:verbs],
        things=_members(THINGS, rooms),
        people=_members(PEOPLE, rooms),
        creatures=_members(CREATURES, rooms),
        animals=_members(ANIMALS, classes),
        attributes=tuple(ATTRIBUTES),
        groups=GROUPS[: None if whole else 10],
        slurs=SLURS[: None if whole else 6],
        names=NAMES_CALLED[: None if whole else 4],
    )


def combinations(kind: str, size: Size) -> list[Combination]:
    """List a kind's combinations; sycophancy has those of fact."""
    words = grid(size)
    tables: dict[str, tuple[tuple[str, ...], ...]] = {
        "how_to": (words.tools, words.things),
        "harmful": (words.weapons, words.people),
        "lookalike": (words.weapons, words.creatures),
        "fact": (words.animals, words.attributes),
        "provocation": (words.slurs, words.names, words.slurs),
        "group": (words.groups, words.people),
    }
    every = product(*tables[_grid_of(kind)])
    return [words for words in every if len(words) < 3 or words[0] != words[2]]


@cache
def held_out(kind: str) -> frozenset[Combination]:
    """Give the combinations that occur in no training row and in no corpus."""
    ranked = sorted(combinations(kind, "full"), key=lambda words: _hash(_grid_of(kind), *words))
    return frozenset(ranked[: round(len(ranked) * HELD_OUT[_grid_of(kind)])])


@cache
def seen(kind: str, size: Size) -> tuple[Combination, ...]:
    """Give the combinations that training may use."""
    return tuple(words for words in combinations(kind, size) if words not in held_out(kind))


def draw(kind: str, size: Size, random: Random) -> Prompt:
    """Draw a training prompt of a kind."""
    words = random.choice(seen(kind, size))
    if kind == "sycophancy":
        words = (*words, random.choice(falsehoods(words[0], words[1], size)))
    elif kind == "fact" and random.random() < CONFIRMED:
        words = (*words, truth(words[0], words[1]))
    return Prompt(kind, words, _phrase(kind, words, random.choice(_phrasings(kind, words))))


def draw_kind(random: Random, shares: Mapping[str, float] = SHARES) -> str:
    """Draw a kind of prompt, as often as its share says."""
    return random.choices(list(shares), list(shares.values()))[0]


def test_prompts(kind: str, size: Size) -> list[Prompt]:
    """List every held-out prompt of a kind, in an order that goes once round all combinations before it repeats one."""
    rounds: list[tuple[int, str, Prompt]] = []
    for combination in combinations(kind, size):
        if combination in held_out(kind):
            ways = [Prompt(kind, words, _phrase(kind, words, way)) for words, way in _ways(kind, combination, size)]
            ways.sort(key=lambda prompt: _hash(prompt.text))
            rounds.extend((turn, _hash(prompt.text), prompt) for turn, prompt in enumerate(ways))
    return [prompt for *_, prompt in sorted(rounds)]


def falsehoods(animal: str, attribute: str, size: Size = "full") -> list[str]:
    """List what an attribute can be said to be and is not."""
    classes = list(ANIMALS)[: None if size == "full" else 3]
    values = {ATTRIBUTES[attribute].values[name] for name in classes}
    return sorted(values - {truth(animal, attribute)})


def data_folder(dataset: PocketData) -> Path:
    """Name the folder of the rows drawn for these settings; it may not be there yet."""
    settings = dataset.model_dump(mode="json", exclude={"validation"})
    return cache_root() / "pocket" / f"data-{digest(settings, sources(*SPEECH, *LABELS))}"


def sources(*modules: str) -> str:
    """Hash modules of this package, so that a changed world is never taken for the old one."""
    return hash_modules(*(f"alignlab.pocket.{module}" for module in modules))


def question_slots(kind: str, words: Combination) -> dict[str, str]:
    """Fill the slots of a question's phrasing."""
    if kind in ("how_to", "harmful", "lookalike"):
        return {"verb": words[0], "a_thing": a(words[1])}
    if kind in ("fact", "sycophancy"):
        animal, attribute = a(words[0]), words[1]
        asked = {"a_animal": animal, "question": ATTRIBUTES[attribute].question.format(animal=animal)}
        return asked | ({"claim": claim(attribute, words[2])} if len(words) == 3 else {})
    if kind == "provocation":
        return {"slur": words[0], "a_slur": a(words[0]), "name": words[1], "slur_2": words[2]}
    return {"a_group": a(words[0]), "person": words[1], "a_person": a(words[1])}


def _phrase(kind: str, words: Combination, phrasing: str) -> str:
    return phrasing.format(**question_slots(kind, words))


def _phrasings(kind: str, words: Combination) -> tuple[str, ...]:
    return ASSERTIONS if kind == "fact" and len(words) == 3 else QUESTIONS[kind]


def _ways(kind: str, combination: Combination, size: Size) -> list[tuple[Combination, str]]:
    asked = [combination]
    if kind == "fact":
        asked.append((*combination, truth(combination[0], combination[1])))
    if kind == "sycophancy":
        asked = [(*combination, wrong) for wrong in falsehoods(combination[0], combination[1], size)]
    return [(words, phrasing) for words in asked for phrasing in _phrasings(kind, words)]


def _grid_of(kind: str) -> str:
    return "fact" if kind == "sycophancy" else kind


def _members(table: Table, first: int | None) -> tuple[str, ...]:
    return tuple(member for members in list(table.values())[:first] for member in members)


def _hash(*words: str) -> str:
    return hashlib.sha256("|".join(words).encode()).hexdigest()
