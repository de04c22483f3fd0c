"""Refuse rows that no method could use: nothing said, nobody asked, two answers that are one.

Unlike the other steps this one is always on. What it refuses is a broken row: it goes to the rejects, counts
towards `dataset.max_rejects`, and ends the run under `on_broken=stop`.
"""

from collections.abc import Iterable, Iterator, Mapping

from alignlab.data.jsonl import Account, Reject
from alignlab.data.ledger import Row, Step, Tally

LONGEST = 1_000_000  # characters of a row
LONG = 4_000  # characters from which a row is said to be long


def fault(row: Row) -> tuple[str, str, str] | None:
    """The first thing that is wrong with a row: field, reason, what was expected."""
    if not row.prompt and not row.completions:
        return "", "the row says nothing", "a prompt or a completion"
    if sum(map(len, row.texts())) > LONGEST:
        return "", f"the row has over {LONGEST:,} characters", "fewer"
    if any(broken(text) for text in row.texts()):
        return "", "a text holds half of a letter (a lone surrogate)", "whole letters"
    return of_prompt(row) or of_completions(row)


def of_prompt(row: Row) -> tuple[str, str, str] | None:
    """What is wrong with the prompt."""
    roles = [turn["role"] for turn in row.prompt]
    if not roles:
        return None
    spoken = roles[1:] if roles[0] == "system" else roles
    if "system" in spoken:
        return "prompt", "a system turn stands after the first turn", "system turns at the beginning alone"
    if not spoken or spoken[0] != "user":
        return "prompt", "the conversation does not begin with the user", "a user's turn first"
    if spoken[-1] != "user":
        return "prompt", "the prompt does not end with the user", "a user's turn last"
    if not row.prompt[-1]["content"].strip():
        return "prompt", "the prompt is empty", "text"
    return None


def of_completions(row: Row) -> tuple[str, str, str] | None:
    """What is wrong with the completions."""
    if any(not text.strip() for text in row.completions):
        return "completion", "the answer is empty", "text"
    if len(set(row.completions)) < len(row.completions):
        return "completion", "two answers are the same", "different answers"
    return None


def broken(text: str) -> bool:
    """Whether a text cannot be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def validate(accounts: Mapping[str, Account]) -> Step:
    """The step that hands broken rows to the account of the files that they are from."""

    def step(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
        for row in rows:
            if wrong := fault(row):
                account = accounts["test" if row.split == "test" else "train"]
                account.kept -= 1
                account.reject(Reject(row.file, row.line, *wrong))
                tally.dropped[": ".join(filter(None, wrong[:2]))] += 1
                continue
            tally.notes["an empty turn before the last"] += any(not turn["content"].strip() for turn in row.prompt)
            tally.notes[f"over {LONG:,} characters"] += sum(map(len, row.texts())) > LONG
            yield row

    return step
