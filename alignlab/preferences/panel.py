"""Labels from several runs over the same answers, and the form in which labels are written."""

import json
from collections.abc import Sequence
from pathlib import Path

from alignlab.errors import failure
from alignlab.judges.protocol import Labelled, Reading
from alignlab.runtime.files import read_json, read_lines
from alignlab.runtime.run_files import LABELS, PREFERENCES

LEAVE_OUT = "leave it out of preferences.panel, or label its answers again"


def join_panel(own: Sequence[Labelled], folders: Sequence[Path], answers_hash: str) -> list[Labelled]:
    """Return labels with the readings of runs in other folders, in the order of the items.

    A labeler who is among them already counts once. Raises a `Failure` for a run over answers with another hash.
    """
    labels = {item.id: item for item in own}
    for folder in folders:
        facts = read_json(folder / PREFERENCES, LEAVE_OUT)
        if (other := facts.get("answers_hash") if isinstance(facts, dict) else None) != answers_hash:
            what = f"{folder} is about other answers ({other}, not {answers_hash})"
            raise failure("preferences.panel", what, "leave it out")
        known = {reading.labeler for item in labels.values() for reading in item.readings}
        for row in read_lines(folder / LABELS):
            try:
                name, new = str(row["id"]), [Reading(**one) for one in row["readings"] if one["labeler"] not in known]
            except (LookupError, TypeError) as error:
                raise failure(str(folder / LABELS), f"holds a row that is no label ({error})", LEAVE_OUT) from error
            if new:
                before = labels.get(name, Labelled(name, []))
                labels[name] = before._replace(readings=[*before.readings, *new])
    return [labels[name] for name in sorted(labels)]


def label_line(labels: Labelled) -> str:
    """Return a label as a line of JSON, without its costs, which differ from run to run."""
    row = labels.row()
    del row["spent"]
    return json.dumps(row, ensure_ascii=False) + "\n"
