"""Run a judge over items, and record its labels one by one."""

import logging
from collections.abc import Sequence

from alignlab.errors import failure
from alignlab.judges.protocol import Item, Judge, Labelled, Unlabelled, labelled
from alignlab.runtime.journal import Journal

log = logging.getLogger("alignlab")

NOW = "mend it and give the same command again"
WARNINGS = 3  # missing labels that are reported one by one


def label_all(judge: Judge, items: Sequence[Item], journal: Journal) -> list[Unlabelled]:
    """Label the items that the journal does not hold yet; return those that could not be labelled.

    Raises a `Failure` where none could.
    """
    from alignlab.runtime.progress import progress

    missing: list[Unlabelled] = []
    with progress(len(items), "judging", "prompts") as advance:
        advance(sum(item.id in journal.rows for item in items))
        for result in judge.label(items, journal.rows):
            if isinstance(result, Unlabelled):
                missing.append(result)
            elif result.id not in journal.rows:
                journal.add([result.row()])
                advance(1)
    for unlabelled in missing[:WARNINGS]:
        log.warning("no label for the answers to prompt %s: %s", unlabelled.id, unlabelled.why)
    if missing and not any(item.id in journal.rows for item in items):
        raise failure("judge", f"none of {len(items):,} prompts got a label: {missing[-1].why}", NOW)
    return missing


def labels_in(journal: Journal, items: Sequence[Item]) -> list[Labelled]:
    """Return the labels of a journal, in the order of the items."""
    return [labelled(journal.rows[item.id]) for item in items if item.id in journal.rows]
