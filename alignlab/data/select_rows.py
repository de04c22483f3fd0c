"""Select the rows of each path by patterns: regular expressions that are searched, without case, in a row's texts."""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from alignlab.config.dataset import Selection
from alignlab.data.ledger import Row, Step, Tally
from alignlab.data.mixture import path_index

NOT_SELECTED = "left out by dataset.select"


def select(paths: Sequence[Path], selections: Sequence[Selection | None] | None) -> Step | None:
    """Return the step that keeps the rows that match the selection of their path; None without selections.

    The rows of `dataset.test_path` are all kept.
    """
    if selections is None:
        return None

    def step(rows: Iterable[Row], tally: Tally) -> Iterator[Row]:
        for row in rows:
            selection = None if row.split == "test" else selections[path_index(row.file, paths)]
            if selection is None or matches(row, selection):
                yield row
            else:
                tally.dropped[NOT_SELECTED] += 1

    return step


def matches(row: Row, selection: Selection) -> bool:
    """Return whether a row has no more user turns than it may, and its texts match the patterns."""
    questions = [turn["content"] for turn in row.prompt if turn["role"] == "user"]
    if selection.turns is not None and len(questions) > selection.turns:
        return False
    chosen, *others = row.completions or [""]
    searched = (
        (selection.prompt, questions[-1:] or [""]),
        (selection.chosen, [chosen]),
        (selection.rejected, others or [""]),
    )
    return all(
        re.search(pattern, text, re.IGNORECASE) for pattern, texts in searched if pattern is not None for text in texts
    )
