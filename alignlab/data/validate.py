"""Reject rows that no method can use: empty texts, a prompt that does not end with the user, identical completions.

This step is always on. A rejected row counts towards `dataset.max_rejects`, and it ends the run if
`dataset.on_broken=stop`.
"""

from collections.abc import Iterable, Iterator

from alignlab.data.ledger import Row, Step, Tally
from alignlab.data.rejects import Reject, RejectLog

LONGEST_ROW = 1_000_000  # characters; a longer row is rejected
LONG_ROW = 4_000  # characters from which a row is counted as long
EMPTY_TURN, LONG = "an empty turn before the last", f"over {LONG_ROW:,} characters"


def validate(log: RejectLog) -> Step:
    """Return the step that adds broken rows to the log of their files."""

    def step(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
        tally.notes.update({EMPTY_TURN: 0, LONG: 0})  # in this order
        for row in rows:
            if fault := find_fault(row):
                reject = Reject(row.file, row.line, *fault)
                log.kept -= 1
                log.add(reject)
                tally.dropped[reject.label] += 1
                continue
            if any(not turn["content"].strip() for turn in row.prompt):
                tally.notes[EMPTY_TURN] += 1
            if sum(map(len, row.texts())) > LONG_ROW:
                tally.notes[LONG] += 1
            yield row

    return step


def find_fault(row: Row) -> tuple[str, str, str] | None:
    """Return the first fault of a row as (field, reason, expected); None if it has none."""
    if not row.prompt and not row.completions:
        return "", "the row is empty", "a prompt or a completion"
    texts = list(row.texts())
    if sum(map(len, texts)) > LONGEST_ROW:
        return "", f"the row has over {LONGEST_ROW:,} characters", "fewer"
    if any(not text.isascii() and has_lone_surrogate(text) for text in texts):
        return "", "a text has half of a character (a lone surrogate)", "whole characters"
    return find_prompt_fault(row) or find_completion_fault(row)


def find_prompt_fault(row: Row) -> tuple[str, str, str] | None:
    """Return the first fault of the prompt."""
    roles = [turn["role"] for turn in row.prompt]
    if not roles:
        return None
    dialogue = roles[1:] if roles[0] == "system" else roles
    if "system" in dialogue:
        return "prompt", "a system turn is not the first turn", "a system turn only at the beginning"
    if not dialogue or dialogue[0] != "user":
        return "prompt", "the conversation does not begin with the user", "a user's turn first"
    if dialogue[-1] != "user":
        return "prompt", "the prompt does not end with the user", "a user's turn last"
    if not row.prompt[-1]["content"].strip():
        return "prompt", "the prompt is empty", "text"
    return None


def find_completion_fault(row: Row) -> tuple[str, str, str] | None:
    """Return the first fault of the completions."""
    if any(not text.strip() for text in row.completions):
        return "completion", "the completion is empty", "text"
    if len(set(row.completions)) < len(row.completions):
        return "completion", "two completions are the same", "different completions"
    return None


def has_lone_surrogate(text: str) -> bool:
    """Return whether a text cannot be encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
