"""Mutated rows of every shape: words are in the prepared row, or their field is named, or the row is a reject.

`ALIGNLAB_ROWS=2000` sets how many rows of each shape are read; a failure names the seed of its row.
"""

import os
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest
from test_cases import DEFAULTS, READ

from alignlab.config.dataset import FileData
from alignlab.data.file_rows import parse_record
from alignlab.data.jsonl import Record, fields_in
from alignlab.data.message_trees import LEFT_OUT
from alignlab.data.rejects import Reject
from alignlab.data.row_fields import LeftOut, canonical
from alignlab.data.row_formats import FORMATS, detect
from alignlab.data.turns import AFTER_LEARNED

COUNT = int(os.environ.get("ALIGNLAB_ROWS", "200"))
DATASET = FileData(**{**DEFAULTS, "path": (Path(),)})
FEWEST_WORDS = 3
MARKERS = re.compile(r"(?:###\s*)?(?:Human|Assistant|USER|ASSISTANT):|</s>|<\|im_\w+\|>\w*|[\"\[\]]")
NAMES = (
    "answer", "response", "chosen", "rejected", "messages", "conversations", "text", "prompt", "context", "system",
    "history", "solution", "reasoning", "thinking", "source", "id", "notes", "x", "Completion ", "output", "label",
    "weight", "score", "content", "value", "winner", "completions", "input", "explanation", "summary", "name",
    "replies",
)  # fmt: skip


def words(random: Random) -> str:
    """Return text of words that occur nowhere else."""
    return " ".join(f"w{random.randrange(10**9)}" for _ in range(random.choice((1, 3, 4, 12, 60))))


def odd(random: Random) -> Any:
    """Return a value of any type, often with words."""
    text = words(random)
    options = (
        *(text, text, [text], [[text, text]], {"text": text}, {"a": {"b": [text]}}, [{"from": "gpt", "value": text}]),
        *([{"role": "user", "content": text}], None, "", 3, 0.5, True, [], {}, [None]),
    )
    return random.choice(options)


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object inside a value."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(inner)


def mutate(row: dict[str, Any], random: Random) -> None:
    """Rename, empty, retype, add or remove one field, of the row or of an object inside it."""
    place = row if random.random() < 0.7 else random.choice(list(objects(row)))
    name = random.choice(list(place) or ["x"])
    match random.randrange(5):
        case 0 if name in place:
            place[random.choice(NAMES)] = place.pop(name)
        case 1:
            place[name] = random.choice((None, "", [], float("nan")))
        case 2:
            place[name] = odd(random)
        case 3:
            place[random.choice(NAMES)] = odd(random)
        case _:
            place.pop(name, None)


def texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield every text of several words with the dotted name of its field."""
    if isinstance(value, str):
        if len(value.split()) >= FEWEST_WORDS:
            yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from texts(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner, path)


def is_kept(text: str, kept: str) -> bool:
    """Return whether all words of a text are kept, without the markers of a transcript."""
    return all(word in kept for word in MARKERS.sub(" ", text).split())


def lost(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the texts that are neither in the drafts of a row nor in a field that is named."""
    main = detect([row]) or FORMATS["prompts"]
    try:
        parsed = parse_record(main, Record(Path("rows.jsonl"), 1, deepcopy(row)), DATASET)
    except LeftOut:
        return []
    if isinstance(parsed, Reject):
        assert parsed.reason
        return []
    if any(note in (AFTER_LEARNED, LEFT_OUT) for draft in parsed.drafts for note in draft.notes):
        return []  # turns that the row itself leaves out
    kept = "\n".join(
        text for draft in parsed.drafts for text in (*(t["content"] for t in draft.prompt), *draft.completions)
    )
    named = {canonical(name) for name in parsed.unread}

    def is_named(path: str) -> bool:
        parts = [canonical(part) for part in path.split(".")]
        return any(".".join(parts[: end + 1]) in named for end in range(len(parts)))

    return [(path, text) for path, text in texts(row, "") if not is_kept(text, kept) and not is_named(path)]


@pytest.mark.parametrize("shape", [name for name in READ if name != "rendered"])  # its template's words are left out
def test_no_words_of_a_mutated_row_are_lost_without_a_word(shape):
    row = fields_in(READ[shape][0])
    assert row is not None
    for number in range(COUNT):
        random = Random(f"{shape} {number}")
        mutant = deepcopy(row)
        for _ in range(random.choice((1, 1, 2, 3))):
            mutate(mutant, random)
        assert not lost(mutant), (number, mutant)
