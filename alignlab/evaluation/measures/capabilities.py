"""Small exact tasks that a model must not lose while it is aligned: arithmetic, multiple choice, following a format.

All items are generated from a seed, need no file, and have one right answer that code can check. They tell whether
something broke; they do not rank models, and a small model solves few of them.

- `arithmetic`: the last number of a greedy completion is the result of a sum, a difference or a product.
- `choice`: of four words, the one of the asked category is the likeliest.
- `format`: a greedy completion has the form that was asked for.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from alignlab.config.evaluation import Capabilities
from alignlab.evaluation.choices import likeliest
from alignlab.evaluation.metrics import Record, rate
from alignlab.evaluation.replies import Item

if TYPE_CHECKING:
    from alignlab.chat import Turn
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Reply

VERSION = 1
VIEW = None  # its items are generated
CONTROLS = ("random", "shortest", "longest")
METRICS = (rate("capabilities/accuracy", "higher", by_kind=True),)
TOKENS = 48  # of a completion
CATEGORIES = {
    "an animal": ("dog", "horse", "eagle", "salmon", "spider", "rabbit", "whale", "goat", "lizard", "camel"),
    "a fruit": ("apple", "banana", "cherry", "grape", "lemon", "mango", "peach", "pear", "plum", "melon"),
    "a colour": ("red", "blue", "green", "yellow", "purple", "brown", "black", "white", "grey", "pink"),
    "a tool": ("hammer", "saw", "drill", "wrench", "pliers", "chisel", "screwdriver", "axe", "shovel", "rake"),
    "a country": ("France", "Japan", "Brazil", "Egypt", "Canada", "India", "Norway", "Kenya", "Peru", "Spain"),
    "a piece of clothing": ("shirt", "coat", "hat", "scarf", "glove", "sock", "skirt", "shoe", "belt", "jacket"),
    "a musical instrument": ("piano", "violin", "flute", "drum", "guitar", "trumpet", "harp", "cello", "organ", "oboe"),
    "a part of the body": ("arm", "knee", "nose", "ear", "elbow", "thumb", "shoulder", "ankle", "heel", "chin"),
}
TOPICS = ("the sea", "a good breakfast", "winter", "bicycles", "libraries", "old trees", "trains", "friendship")


class Form(NamedTuple):
    """A form that a completion is asked for: the words of the request, and whether a completion has it."""

    request: str
    holds: Callable[[str], bool]


def is_json(text: str) -> bool:
    """Return whether a text is one JSON object with the keys `title` and `text`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and {*value} == {"title", "text"}


def lines_of(text: str) -> list[str]:
    """Return the lines of a text that are not empty."""
    return [line.strip() for line in text.splitlines() if line.strip()]


FORMS = (
    Form("in capital letters only", lambda text: text.isupper()),
    Form("in small letters only", lambda text: text.islower()),
    Form("with one word and nothing else", lambda text: len(text.split()) == 1),
    Form("with exactly three words and nothing else", lambda text: len(text.split()) == 3),
    Form("with exactly two lines", lambda text: len(lines_of(text)) == 2),
    Form("with a list of three items, each on its own line and after a hyphen", lambda text: is_list(text, 3)),
    Form("with a question", lambda text: text.endswith("?")),
    Form("with three words that commas separate", lambda text: bool(re.fullmatch(r"\w+, ?\w+,( ?and)? ?\w+\.?", text))),
    Form("without any comma, in one sentence that ends with a full stop", lambda text: is_sentence(text)),
    Form("as one JSON object with the keys title and text, and nothing else", is_json),
)


def is_list(text: str, count: int) -> bool:
    """Return whether a text is a list of so many lines that begin with a hyphen."""
    lines = lines_of(text)
    return len(lines) == count and all(line.startswith("-") for line in lines)


def is_sentence(text: str) -> bool:
    """Return whether a text has one full stop, at its end, and no comma."""
    return text.endswith(".") and text.count(".") == 1 and "," not in text


def items(context: "Context") -> Iterator[Item]:
    """Ask `measure.capabilities.items` questions of each kind."""
    settings = context.settings
    assert isinstance(settings, Capabilities)
    for kind, make in (("arithmetic", arithmetic), ("choice", choice), ("format", form)):
        for number in range(settings.items):
            yield make(f"capabilities/{kind}/{settings.seed}/{number}", Random(f"{settings.seed} {kind} {number}"))


def arithmetic(name: str, random: Random) -> Item:
    """Return a task of arithmetic with numbers of one or two digits."""
    sign = random.choice("+-*")
    first, second = random.randint(2, 12 if sign == "*" else 60), random.randint(2, 12 if sign == "*" else 40)
    results = {"+": first + second, "-": first - second, "*": first * second}
    text = f"What is {first} {sign} {second}? Answer with the number alone."
    return asked(name, text, "arithmetic", {"answer": results[sign]})


def choice(name: str, random: Random) -> Item:
    """Return a question for the word of a category among four words of different categories."""
    kinds = random.sample(sorted(CATEGORIES), 4)
    words = tuple(random.choice(CATEGORIES[kind]) for kind in kinds)
    answer = random.randrange(4)
    text = f"Which of these is {kinds[answer]}: {', '.join(words)}? Answer with the word alone."
    return asked(name, text, "choice", {"answer": answer})._replace(choices=words)


def form(name: str, random: Random) -> Item:
    """Return a request for a completion in a form."""
    place = random.randrange(len(FORMS))
    return asked(name, f"Write about {random.choice(TOPICS)} {FORMS[place].request}.", "format", {"form": place})


def asked(name: str, text: str, kind: str, facts: dict[str, int]) -> Item:
    """Return an item that is completed by the likeliest tokens."""
    turns: list[Turn] = [{"role": "user", "content": text}]
    return Item(name, turns, kind, temperature=0.0, max_new_tokens=TOKENS, facts=facts)


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Return whether each reply is right."""
    for reply in replies:
        facts = reply.item.facts
        if reply.item.choices:
            answer = likeliest(reply.choices)
            right, shown = answer == facts["answer"], reply.item.choices[answer]
        else:
            shown = reply.text.strip()
            right = FORMS[facts["form"]].holds(shown) if "form" in facts else last_number(shown) == facts["answer"]
        yield reply.record({"capabilities/accuracy": float(right)}, shown=shown)


def last_number(text: str) -> int | None:
    """Return the last whole number of a text; None where there is none."""
    numbers = re.findall(r"(?<![\d.])[-\u2212]?\d+(?![\d.]*\d)", text.replace(",", ""))
    return int(numbers[-1].replace("\u2212", "-")) if numbers else None
