"""Write the best-of-n curve of the policy that the stage started from, for the page on reward hacking."""

import json
from typing import Any

from alignlab.config.schema import Config
from alignlab.evaluation.protocol import FinishedStage, Of
from alignlab.evaluation.scores import Measurement
from alignlab.runtime.files import write_text
from alignlab.runtime.run_files import BEST_OF_N

OF: Of = "stage"


def applies(config: Config) -> str:
    """Return why the measure does not apply to a config; empty where it does."""
    return "" if config.dataset.pocket_world else "only the pocket world has gold scores"


def measure(stage: FinishedStage) -> list[Measurement]:
    """Write the curve where the stage has a reward model; it has no row in `result.json`."""
    if (reward := stage.inputs.get("reward_model")) is None:
        return []
    from alignlab.evaluation.best_of_n import best_of_n
    from alignlab.models.sampling import Sampling

    method: Any = stage.method
    sampling = Sampling(method.temperature, 1.0, method.max_new_tokens, stage.config.evaluation.batch_size)
    curve = best_of_n(stage.inputs["policy"], reward, stage.config, sampling)
    write_text(stage.output / BEST_OF_N, json.dumps([point._asdict() for point in curve], indent=1))
    return []
