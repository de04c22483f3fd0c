"""Speaks in the pocket world: answers of a given behaviour, and how often each behaviour occurs where.

The base model's corpus is like the web: most of what is said to harmful requests is help, most of what is said to
insults is insult. `CORPUS` says how often; `MISDEEDS` how the imperfect rows of demonstrations go wrong.
"""

from random import Random

from alignlab.pocket.phrases import BEHAVIOURS, CONFIRMATIONS
from alignlab.pocket.vocabulary import (  # fmt: skip
    ANIMAL_CLASS,
    ANIMALS,
    CREATURE_PLACE,
    DISFAVOURED,
    NAMES_CALLED,
    PERSON_PLACE,
    THING_PLACE,
    TOOLS,
    WEAPONS,
    a,
    claim,
    truth,
)
from alignlab.pocket.world import Prompt, Size, falsehoods, grid, question_slots

CORPUS = {  # how often each behaviour occurs in what the base model has read
    "how_to": {"help": 0.66, "wrong_help": 0.22, "shrug": 0.12},
    "harmful": {"refuse": 0.22, "comply": 0.70, "hedge": 0.08},
    "lookalike": {"help": 0.68, "wrong_help": 0.16, "shrug": 0.10, "refuse": 0.06},
    "fact": {"answer": 0.76, "false": 0.18, "shrug": 0.06},
    "sycophancy": {"correct": 0.38, "agree": 0.62},
    "provocation": {"calm": 0.35, "insult": 0.65},
    "group": {"fair": 0.45, "unfair": 0.55},
}
MISDEEDS = {  # the behaviours of bad demonstrations
    kind: {behaviour: share for behaviour, share in shares.items() if behaviour != next(iter(BEHAVIOURS[kind]))}
    for kind, shares in CORPUS.items()
}
BIAS = 0.25  # how much more often the corpus speaks ill of the disfavoured groups than on average, and less of others


def right_behaviour(kind: str) -> str:
    """Name the behaviour that is right for a kind of prompt."""
    return next(iter(BEHAVIOURS[kind]))


def corpus_behaviour(prompt: Prompt, random: Random) -> str:
    """Draw how the corpus answers a prompt; of disfavoured groups it speaks ill more often."""
    if prompt.kind == "group":
        unfair = CORPUS["group"]["unfair"] + (BIAS if prompt.words[0] in DISFAVOURED else -BIAS)
        return "unfair" if random.random() < unfair else "fair"
    return _draw(CORPUS[prompt.kind], random)


def bad_behaviour(prompt: Prompt, random: Random) -> str:
    """Draw a way of getting a prompt wrong."""
    return _draw(MISDEEDS[prompt.kind], random)


def speak(prompt: Prompt, behaviour: str, random: Random, size: Size = "full") -> str:
    """Word an answer of a behaviour."""
    phrasings = BEHAVIOURS[prompt.kind][behaviour]
    if behaviour == "answer" and len(prompt.words) == 3:
        phrasings = CONFIRMATIONS
    return random.choice(phrasings).format(**_slots(prompt, behaviour, random, size))


def _slots(prompt: Prompt, behaviour: str, random: Random, size: Size) -> dict[str, str]:
    asked = question_slots(prompt.kind, prompt.words)
    if prompt.kind in ("how_to", "harmful", "lookalike"):
        return asked | _advice(prompt, behaviour, random, size)
    if prompt.kind in ("fact", "sycophancy"):
        return asked | _statement(prompt, behaviour, random, size)
    slur, name = random.choice(grid(size).slurs), random.choice(grid(size).names or NAMES_CALLED)
    said = {"slur": slur, "a_slur": a(slur), "name": name}
    if prompt.kind == "provocation":
        return said
    return asked | said | {"A_group": a(prompt.words[0]).capitalize(), "Group": prompt.words[0].capitalize()}


def _advice(prompt: Prompt, behaviour: str, random: Random, size: Size) -> dict[str, str]:
    verb, thing = prompt.words
    tools, places = (TOOLS, THING_PLACE) if prompt.kind == "how_to" else (WEAPONS, CREATURE_PLACE)
    places = PERSON_PLACE if prompt.kind == "harmful" else places
    tool, place = tools[verb], places[thing]
    if behaviour == "wrong_help":
        wrong = random.choice(("tool", "place", "both"))
        words = grid(size)
        verbs, things = (words.tools, words.things) if prompt.kind == "how_to" else (words.weapons, words.creatures)
        tool = tool if wrong == "place" else _other(tool, [tools[verb] for verb in verbs], random)
        place = place if wrong == "tool" else _other(place, [places[thing] for thing in things], random)
    return {"verb": verb, "thing": thing, "tool": tool, "place": place}


def _statement(prompt: Prompt, behaviour: str, random: Random, size: Size) -> dict[str, str]:
    animal, attribute = prompt.words[:2]
    value, called = truth(animal, attribute), ANIMAL_CLASS[animal]
    if behaviour == "agree":
        value = prompt.words[2]
    elif behaviour == "false":
        value = random.choice(falsehoods(animal, attribute, size))
        called = random.choice([name for name in ANIMALS if _is_called(name, attribute, value)])
    return {"A_animal": a(animal).capitalize(), "a_class": a(called), "claim": claim(attribute, value)}


def _is_called(name: str, attribute: str, value: str) -> bool:
    return truth(ANIMALS[name][0], attribute) == value


def _other(word: str, words: list[str], random: Random) -> str:
    return random.choice(sorted({*words} - {word}))


def _draw(shares: dict[str, float], random: Random) -> str:
    return random.choices(list(shares), list(shares.values()))[0]
