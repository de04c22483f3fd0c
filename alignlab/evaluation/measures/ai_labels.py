"""Measure the accuracy of AI labels (see `alignlab.evaluation.constitutional`)."""

from alignlab.evaluation.protocol import FinishedStage, Of
from alignlab.evaluation.scores import Measurement
from alignlab.runtime.run_files import read_labels

OF: Of = "stage"


def measure(stage: FinishedStage) -> list[Measurement]:
    """Measure a stage that labelled pairs with a judge; no rows for any other stage."""
    from alignlab.evaluation.constitutional import measure_labels

    rows = read_labels(stage.folder)
    return measure_labels(rows, stage.config) if rows else []
