"""Measure completions after each round of revision (see `alignlab.evaluation.constitutional`)."""

from alignlab.evaluation.protocol import FinishedStage, Of
from alignlab.evaluation.scores import Measurement
from alignlab.runtime.run_files import read_revisions

OF: Of = "stage"


def measure(stage: FinishedStage) -> list[Measurement]:
    """Measure a stage that revised completions; no rows for any other stage."""
    from alignlab.evaluation.constitutional import measure_revisions

    return measure_revisions(read_revisions(stage.folder), stage.config)
