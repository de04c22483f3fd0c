"""Measure a reward model on held-out pairs (see `alignlab.evaluation.reward_model`)."""

from alignlab.evaluation.protocol import FinishedStage, Of
from alignlab.evaluation.scores import Measurement

OF: Of = "stage"
VIEW = "pairs"  # the held-out rows that it needs


def measure(stage: FinishedStage) -> list[Measurement]:
    """Measure a stage that makes a reward model; no rows for any other stage."""
    if stage.makes != "reward_model":
        return []
    from alignlab.evaluation.reward_model import measure_pairs

    return measure_pairs(stage.folder / "model", stage.config, stage.output)
