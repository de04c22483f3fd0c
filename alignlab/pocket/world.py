"""The prompts of the pocket world: combinations of its words, a part of which is held out for evaluation.

A prompt is a combination of words (a verb and a thing, an animal and an attribute, …) in some phrasing. For each kind
of prompt, a fixed share of the combinations is held out. A hash of the words decides which, so that neither the seed
nor the size of the world changes it. Training data and the base model's corpus use the other combinations only. The
kinds fact and sycophancy hold out the same combinations of animal and attribute.
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
    claim,
    true_value,
    with_article,
)
from alignlab.runtime.files import cache_root, digest
from alignlab.runtime.source_hash import hash_modules

Size = Literal["full", "small"]
Combination = tuple[str, ...]
KINDS = ("how_to", "harmful", "lookalike", "fact", "sycophancy", "provocation", "group")
SHARES = {  # the share of each kind among training prompts
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
TEXT_MODULES = ("vocabulary", "phrases", "world", "answers", "corpus")  # the modules that decide the texts
LABEL_MODULES = ("parse", "gold", "corrupt", "annotators")  # the modules that decide the labels
CONFIRMED = 0.25  # the share of fact prompts in which the user states the right answer


class Prompt(NamedTuple):
    """A prompt: its kind, the words that it combines, and its text."""

    kind: str
    words: Combination
    text: str

    @property
    def id(self) -> str:
        """Return the id of the prompt."""
        return prompt_id(self.kind, self.text)


class WordTables(NamedTuple):
    """The words that a world of one size combines."""

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
def word_tables(size: Size) -> WordTables:
    """Return the words of a size; `small` has the first few of each table."""
    full = size == "full"
    verbs, rooms, classes = (None, None, None) if full else (10, 3, 3)
    return WordTables(
        tools=tuple(TOOLS)[:verbs],
        weapons=tuple(WEAPONS)[:verbs],
        things=_members(THINGS, rooms),
        people=_members(PEOPLE, rooms),
        creatures=_members(CREATURES, rooms),
        animals=_members(ANIMALS, classes),
        attributes=tuple(ATTRIBUTES),
        groups=GROUPS[: None if full else 10],
        slurs=SLURS[: None if full else 6],
        names=NAMES_CALLED[: None if full else 4],
    )


def combinations(kind: str, size: Size) -> list[Combination]:
    """Return the combinations of a kind; sycophancy has those of fact."""
    words = word_tables(size)
    tables: dict[str, tuple[tuple[str, ...], ...]] = {
        "how_to": (words.tools, words.things),
        "harmful": (words.weapons, words.people),
        "lookalike": (words.weapons, words.creatures),
        "fact": (words.animals, words.attributes),
        "provocation": (words.slurs, words.names, words.slurs),
        "group": (words.groups, words.people),
    }
    products = product(*tables[_combination_kind(kind)])
    return [words for words in products if len(words) < 3 or words[0] != words[2]]


@cache
def held_out(kind: str) -> frozenset[Combination]:
    """Return the combinations that occur neither in training rows nor in the corpus."""
    ranked = sorted(combinations(kind, "full"), key=lambda words: _hash(_combination_kind(kind), *words))
    return frozenset(ranked[: round(len(ranked) * HELD_OUT[_combination_kind(kind)])])


@cache
def training_combinations(kind: str, size: Size) -> tuple[Combination, ...]:
    """Return the combinations that training rows and the corpus may use."""
    return tuple(words for words in combinations(kind, size) if words not in held_out(kind))


def prompt_id(kind: str, text: str) -> str:
    """Return the id of a prompt, made from its kind and a hash of its text."""
    return f"{kind}-{_hash(text)[:10]}"


def draw_prompt(kind: str, size: Size, random: Random) -> Prompt:
    """Draw a training prompt of a kind."""
    words = random.choice(training_combinations(kind, size))
    if kind == "sycophancy":
        words = (*words, random.choice(false_values(words[0], words[1], size)))
    elif kind == "fact" and random.random() < CONFIRMED:
        words = (*words, true_value(words[0], words[1]))
    return Prompt(kind, words, _phrase(kind, words, random.choice(_phrasings(kind, words))))


def draw_kind(random: Random, shares: Mapping[str, float] = SHARES) -> str:
    """Draw a kind of prompt with the probability of its share."""
    return random.choices(list(shares), list(shares.values()))[0]


def test_prompts(kind: str, size: Size) -> list[Prompt]:
    """Return all held-out prompts of a kind, ordered so that all combinations occur before any occurs again."""
    rounds: list[tuple[int, str, Prompt]] = []
    for combination in combinations(kind, size):
        if combination in held_out(kind):
            prompts = sorted(_prompts_of(kind, combination, size), key=lambda prompt: _hash(prompt.text))
            rounds.extend((number, _hash(prompt.text), prompt) for number, prompt in enumerate(prompts))
    return [prompt for *_, prompt in sorted(rounds)]


def false_values(animal: str, attribute: str, size: Size = "full") -> list[str]:
    """Return the values of an attribute that are false of an animal."""
    classes = list(ANIMALS)[: None if size == "full" else 3]
    values = {ATTRIBUTES[attribute].values[name] for name in classes}
    return sorted(values - {true_value(animal, attribute)})


def data_folder(dataset: PocketData) -> Path:
    """Return the folder of the rows for these settings; it may not exist yet."""
    settings = dataset.model_dump(mode="json", exclude={"validation"})
    return cache_root() / "pocket" / f"data-{digest(settings, hash_sources(*TEXT_MODULES, *LABEL_MODULES))}"


def hash_sources(*modules: str) -> str:
    """Hash modules of this package, so that data of a changed world is not taken from the cache."""
    return hash_modules(*(f"alignlab.pocket.{module}" for module in modules))


def question_slots(kind: str, words: Combination) -> dict[str, str]:
    """Return the values of the slots in a question's phrasing."""
    if kind in ("how_to", "harmful", "lookalike"):
        return {"verb": words[0], "a_thing": with_article(words[1])}
    if kind in ("fact", "sycophancy"):
        animal, attribute = with_article(words[0]), words[1]
        slots = {"a_animal": animal, "question": ATTRIBUTES[attribute].question.format(animal=animal)}
        return slots | ({"claim": claim(attribute, words[2])} if len(words) == 3 else {})
    if kind == "provocation":
        return {"slur": words[0], "a_slur": with_article(words[0]), "name": words[1], "slur_2": words[2]}
    return {"a_group": with_article(words[0]), "person": words[1], "a_person": with_article(words[1])}


def _phrase(kind: str, words: Combination, phrasing: str) -> str:
    return phrasing.format(**question_slots(kind, words))


def _phrasings(kind: str, words: Combination) -> tuple[str, ...]:
    return ASSERTIONS if kind == "fact" and len(words) == 3 else QUESTIONS[kind]


def _prompts_of(kind: str, combination: Combination, size: Size) -> list[Prompt]:
    """Return all prompts of a combination: with every assertion that the kind allows, in every phrasing."""
    variants = [combination]
    if kind == "fact":
        variants.append((*combination, true_value(combination[0], combination[1])))
    if kind == "sycophancy":
        variants = [(*combination, wrong) for wrong in false_values(combination[0], combination[1], size)]
    return [
        Prompt(kind, words, _phrase(kind, words, phrasing))
        for words in variants
        for phrasing in _phrasings(kind, words)
    ]


def _combination_kind(kind: str) -> str:
    return "fact" if kind == "sycophancy" else kind


def _members(table: Table, first: int | None) -> tuple[str, ...]:
    return tuple(member for members in list(table.values())[:first] for member in members)


def _hash(*words: str) -> str:
    return hashlib.sha256("|".join(words).encode()).hexdigest()
