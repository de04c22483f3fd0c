"""Measure how often AI labels are right (see `alignlab.evaluation.constitutional`)."""

from alignlab.evaluation.protocol import FinishedStage, Of
from alignlab.evaluation.scores import Measurement
from alignlab.runtime.files import read_lines
from alignlab.runtime.run_files import LABELS

OF: Of = "stage"


def measure(stage: FinishedStage) -> list[Measurement]:
    """Return the rows of a stage that has had answers labelled by a judge; none for any other stage."""
    from alignlab.evaluation.constitutional import measure_labels

    rows = read_lines(stage.folder / LABELS)
    return measure_labels(rows, stage.config) if rows else []
