"""Measure on held-out pairs: a reward model, or the implicit reward of a policy that has learned from pairs (DPO)."""

from alignlab.config.method_protocol import load_method
from alignlab.evaluation.protocol import FinishedStage, Of
from alignlab.evaluation.scores import Measurement

OF: Of = "stage"
VIEW = "pairs"  # the held-out rows that it needs


def measure(stage: FinishedStage) -> list[Measurement]:
    """Measure a stage that makes a reward model, or a policy with `beta` from pairs; no rows for any other stage."""
    if stage.makes == "reward_model":
        from alignlab.evaluation.reward_model import measure_pairs

        return measure_pairs(stage.folder / "model", stage.config, stage.output)
    if load_method(stage.method.name).view == VIEW and hasattr(stage.method, "beta"):
        from alignlab.evaluation.implicit_reward import measure_policy

        return measure_policy(stage)
    return []
