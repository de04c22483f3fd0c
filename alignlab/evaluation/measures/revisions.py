"""Measure the answers of Constitutional AI after each round of revision (see `alignlab.evaluation.constitutional`)."""

from alignlab.evaluation.protocol import FinishedStage, Of
from alignlab.evaluation.scores import Measurement
from alignlab.runtime.files import read_lines
from alignlab.runtime.run_files import REVISIONS

OF: Of = "stage"


def measure(stage: FinishedStage) -> list[Measurement]:
    """Return the rows of a stage that has revised answers; none for any other stage."""
    from alignlab.evaluation.constitutional import measure_revisions

    return measure_revisions(read_lines(stage.folder / REVISIONS), stage.config)
