"""Labels from several runs over the same answers, and the form in which labels are written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignlab.errors import failure
from alignlab.judges.protocol import Labelled, Reading
from alignlab.runtime.files import read_lines
from alignlab.runtime.run_files import LABELS, PREFERENCES


def join_panel(own: Sequence[Labelled], folders: Sequence[Path], answers_hash: str) -> list[Labelled]:
    """Return labels with the readings of runs in other folders, in the order of the items.

    A labeler who is among them already counts once. Raises a `Failure` for a run over answers with another hash.
    """
    labels = {item.id: item for item in own}
    for folder in folders:
        if (other := read_json(folder / PREFERENCES)["answers_hash"]) != answers_hash:
            what = f"{folder} is about other answers ({other}, not {answers_hash})"
            raise failure("preferences.panel", what, "leave it out")
        known = {reading.labeler for item in labels.values() for reading in item.readings}
        for row in read_lines(folder / LABELS):
            new = [Reading(**reading) for reading in row["readings"] if reading["labeler"] not in known]
            if new:
                before = labels.get(row["id"], Labelled(row["id"], []))
                labels[row["id"]] = before._replace(readings=[*before.readings, *new])
    return [labels[name] for name in sorted(labels)]


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON of a file."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def label_line(labels: Labelled) -> str:
    """Return a label as a line of JSON, without its costs, which differ from run to run."""
    row = labels.row()
    del row["spent"]
    return json.dumps(row, ensure_ascii=False) + "\n"
