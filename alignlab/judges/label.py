"""Run a judge over items, and record its labels one by one."""

import logging
from collections.abc import Sequence

from alignlab.judges.protocol import Item, Judge, Labelled, Unlabelled, labelled
from alignlab.runtime.journal import Journal

log = logging.getLogger("alignlab")

UNTOLD = 3  # reasons for missing labels that are told one by one


def label_all(judge: Judge, items: Sequence[Item], journal: Journal) -> list[Unlabelled]:
    """Label what the journal does not hold yet; gives the items that could not be labelled."""
    from alignlab.runtime.progress import progress

    missing: list[Unlabelled] = []
    with progress(len(items), "judging", "prompts") as advance:
        advance(sum(item.id in journal.rows for item in items))
        for one in judge.label(items, journal.rows):
            if isinstance(one, Unlabelled):
                missing.append(one)
            elif one.id not in journal.rows:
                journal.add([one.row()])
                advance(1)
    for one in missing[:UNTOLD]:
        log.warning("no label for the answers to prompt %s: %s", one.id, one.why)
    return missing


def found(journal: Journal, items: Sequence[Item]) -> list[Labelled]:
    """The labels of a journal, in the order of the items."""
    return [labelled(journal.rows[item.id]) for item in items if item.id in journal.rows]
