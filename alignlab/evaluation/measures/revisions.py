"""Measure completions after each round of revision (see `alignlab.evaluation.constitutional`)."""

from collections.abc import Iterable, Sequence

from alignlab.evaluation.constitutional import revision_metrics, revision_records
from alignlab.evaluation.metrics import Record
from alignlab.evaluation.protocol import Context, Of
from alignlab.evaluation.replies import Item, Reply
from alignlab.runtime.run_files import read_revisions

VERSION = 1
OF: Of = "stage"
METRICS = revision_metrics


def items(context: Context) -> list[Item]:
    """Ask nothing: the rows are those that the stage has written."""
    return []


def score(replies: Sequence[Reply], context: Context) -> Iterable[Record]:
    """Return the records of the stage's rows; none where it has written none."""
    assert context.stage
    return revision_records(read_revisions(context.stage.folder), bool(context.config.dataset.pocket_world))
