"""Settings of `conf/constitution/`: principles for critiques, revisions and AI labels (arXiv 2212.08073).

A principle holds three requests: for a critique of an answer, for a revision, and for the better of two answers.
`good` is the start of a critique that finds nothing wrong; its probability scores the answer. The few-shot `examples`
are conversations that precede every request.

`read` reads a constitution from its YAML file and reports each fault with its line.
"""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from alignlab.config.settings import RULES, Positive, Settings
from alignlab.config.suggestions import close_to
from alignlab.config.yaml_files import check as check_yaml
from alignlab.errors import Fault, Mistake, failure, mistake

SLOTS = {"prompt", "first", "second"}
Words = Annotated[str, Field(min_length=1)]


class ExampleTurn(Settings):
    """One turn of a few-shot conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Chat = Annotated[tuple[ExampleTurn, ...], Field(strict=False, min_length=1)]


class Principle(Settings):
    """Three requests about an answer; principles are drawn in proportion to their weights."""

    name: Words
    weight: Positive = 1.0
    critique_request: Words
    revision_request: Words
    preference_question: Words
    good: Words

    def faults(self) -> Iterator[Fault]:
        if fault := slot_fault(self.preference_question):
            yield Fault("preference_question", fault, "write {prompt}, {first} and {second} at their places")


class Constitution(Settings):
    """Principles, the names of the first and the second answer, and few-shot conversations."""

    principles: Annotated[tuple[Principle, ...], Field(strict=False, min_length=1)]
    choices: Annotated[tuple[Words, Words], Field(strict=False)]
    examples: Annotated[tuple[Chat, ...], Field(strict=False)] = ()

    def faults(self) -> Iterator[Fault]:
        for place, principle in enumerate(self.principles):
            yield from (fault._replace(where=f"principles.{place}.{fault.where}") for fault in principle.faults())

    def draw(self, count: int, seed: str) -> list[Principle]:
        """Draw principles at random by their weights, the same for the same seed."""
        weights = [principle.weight for principle in self.principles]
        return Random(seed).choices(self.principles, weights, k=count)


def slot_fault(question: str) -> str:
    """Return the fault in the slots of a preference question, or an empty text."""
    try:
        used = {name for _, name, _, _ in Formatter().parse(question) if name is not None}
    except ValueError as error:
        return str(error)
    missing, unknown = sorted(SLOTS - used), sorted(used - SLOTS)
    if missing:
        return f"{{{missing[0]}}} is missing"
    return f"unknown slot {{{unknown[0]}}}" if unknown else ""


def read(path: Path) -> Constitution:
    """Read a constitution's file; raises a `Mistake` with every fault, its file, line and field."""
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        marks = yaml.compose(text, yaml.SafeLoader)
        check_yaml(marks)
        tree = yaml.safe_load(text)
    except OSError as error:
        raise mistake("constitution", f"{path} cannot be read ({error.strerror})", "give a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise failure(str(path), f"is no YAML ({' '.join(str(error).split())[:120]})") from error
    try:
        constitution = Constitution.model_validate(tree)
    except ValidationError as error:
        raise Mistake([located(path, marks, fault["loc"], *rephrased(fault)) for fault in error.errors()]) from error
    if faults := [located(path, marks, tuple(f.where.split(".")), f.what, f.now) for f in constitution.faults()]:
        raise Mistake(faults)
    return constitution


def located(path: Path, marks: Any, place: tuple[Any, ...], what: str, now: str) -> Fault:
    """Return a fault with file, line and field; a missing field has the line of the mapping that lacks it."""
    keys = [str(key) for key in place if key not in {"constrained-str", "tuple"}]
    return Fault(f"{path}:{line_of(marks, keys)}: {'.'.join(keys) or 'the file'}", what, now)


def line_of(node: Any, keys: list[str]) -> int:
    """Return the line (from 1) of the deepest node along the keys."""
    if node is None:
        return 1
    line = int(node.start_mark.line) + 1
    if not keys:
        return line
    first, *rest = keys
    if isinstance(node.value, list) and node.id == "sequence" and first.isdigit() and int(first) < len(node.value):
        return line_of(node.value[int(first)], rest)
    for key, value in node.value if node.id == "mapping" else ():
        if key.value == first:
            return line_of(value, rest) if rest else int(key.start_mark.line) + 1
    return line


def rephrased(fault: Any) -> tuple[str, str]:
    """Rephrase an error of pydantic as what is wrong and what to do."""
    field = str(fault["loc"][-1]) if fault["loc"] else ""
    known = list((Principle if "principles" in fault["loc"][:-1] else Constitution).model_fields)
    match fault["type"]:
        case "missing":
            return "is missing", f"add {field}: …"
        case "extra_forbidden":
            return "unknown key", close_to(field, known) or f"there is {', '.join(known)}"
        case "too_short":
            return "is empty", "write at least one principle"
        case kind if kind in RULES:
            return f"{fault['input']!r} is not {RULES[kind]}", ""
        case _:
            return str(fault["msg"]), ""
