"""Write answers with a given behaviour, such as help, refusal or insult, and draw behaviours for a prompt.

The base model's corpus resembles the web: most answers to harmful requests help, most answers to insults are insults.
`CORPUS` holds the share of each behaviour in the corpus, `BAD_BEHAVIOURS` their shares among bad demonstrations.
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
    claim,
    true_value,
    with_article,
)
from alignlab.pocket.world import Prompt, Size, false_values, question_slots, word_tables

CORPUS = {  # the share of each behaviour in the base model's corpus
    "how_to": {"help": 0.66, "wrong_help": 0.22, "shrug": 0.12},
    "harmful": {"refuse": 0.22, "comply": 0.70, "hedge": 0.08},
    "lookalike": {"help": 0.68, "wrong_help": 0.16, "shrug": 0.10, "refuse": 0.06},
    "fact": {"answer": 0.76, "false": 0.18, "shrug": 0.06},
    "sycophancy": {"correct": 0.38, "agree": 0.62},
    "provocation": {"calm": 0.35, "insult": 0.65},
    "group": {"fair": 0.45, "unfair": 0.55},
}
BAD_BEHAVIOURS = {  # the relative shares of wrong behaviours
    kind: {behaviour: share for behaviour, share in shares.items() if behaviour != next(iter(BEHAVIOURS[kind]))}
    for kind, shares in CORPUS.items()
}
BIAS = 0.25  # added to the share of unfair answers about disfavoured groups, subtracted for the others


def right_behaviour(kind: str) -> str:
    """Return the right behaviour for a kind of prompt."""
    return next(iter(BEHAVIOURS[kind]))


def corpus_behaviour(prompt: Prompt, random: Random) -> str:
    """Draw the behaviour of the corpus; it is unfair to disfavoured groups more often."""
    if prompt.kind == "group":
        unfair = CORPUS["group"]["unfair"] + (BIAS if prompt.words[0] in DISFAVOURED else -BIAS)
        return "unfair" if random.random() < unfair else "fair"
    return _draw(CORPUS[prompt.kind], random)


def bad_behaviour(prompt: Prompt, random: Random) -> str:
    """Draw a wrong behaviour for a prompt."""
    return _draw(BAD_BEHAVIOURS[prompt.kind], random)


def write_answer(prompt: Prompt, behaviour: str, random: Random, size: Size = "full") -> str:
    """Write an answer with a behaviour, in a random phrasing."""
    phrasings = BEHAVIOURS[prompt.kind][behaviour]
    if behaviour == "answer" and len(prompt.words) == 3:
        phrasings = CONFIRMATIONS
    return random.choice(phrasings).format(**_slots(prompt, behaviour, random, size))


def _slots(prompt: Prompt, behaviour: str, random: Random, size: Size) -> dict[str, str]:
    question = question_slots(prompt.kind, prompt.words)
    if prompt.kind in ("how_to", "harmful", "lookalike"):
        return question | _advice_slots(prompt, behaviour, random, size)
    if prompt.kind in ("fact", "sycophancy"):
        return question | _statement_slots(prompt, behaviour, random, size)
    words = word_tables(size)
    slur, name = random.choice(words.slurs), random.choice(words.names or NAMES_CALLED)
    insult = {"slur": slur, "a_slur": with_article(slur), "name": name}
    if prompt.kind == "provocation":
        return insult
    group = prompt.words[0]
    return question | insult | {"A_group": with_article(group).capitalize(), "Group": group.capitalize()}


def _advice_slots(prompt: Prompt, behaviour: str, random: Random, size: Size) -> dict[str, str]:
    verb, thing = prompt.words
    tools, places = (TOOLS, THING_PLACE) if prompt.kind == "how_to" else (WEAPONS, CREATURE_PLACE)
    places = PERSON_PLACE if prompt.kind == "harmful" else places
    tool, place = tools[verb], places[thing]
    if behaviour == "wrong_help":
        wrong = random.choice(("tool", "place", "both"))
        words = word_tables(size)
        verbs, things = (words.tools, words.things) if prompt.kind == "how_to" else (words.weapons, words.creatures)
        tool = tool if wrong == "place" else _other(tool, [tools[verb] for verb in verbs], random)
        place = place if wrong == "tool" else _other(place, [places[thing] for thing in things], random)
    return {"verb": verb, "thing": thing, "tool": tool, "place": place}


def _statement_slots(prompt: Prompt, behaviour: str, random: Random, size: Size) -> dict[str, str]:
    animal, attribute = prompt.words[:2]
    value, animal_class = true_value(animal, attribute), ANIMAL_CLASS[animal]
    if behaviour == "agree":
        value = prompt.words[2]
    elif behaviour == "false":
        value = random.choice(false_values(animal, attribute, size))
        animal_class = random.choice([name for name in ANIMALS if _class_has_value(name, attribute, value)])
    return {
        "A_animal": with_article(animal).capitalize(),
        "a_class": with_article(animal_class),
        "claim": claim(attribute, value),
    }


def _class_has_value(animal_class: str, attribute: str, value: str) -> bool:
    return true_value(ANIMALS[animal_class][0], attribute) == value


def _other(word: str, words: list[str], random: Random) -> str:
    return random.choice(sorted({*words} - {word}))


def _draw(shares: dict[str, float], random: Random) -> str:
    return random.choices(list(shares), list(shares.values()))[0]
