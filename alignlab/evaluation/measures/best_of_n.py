"""Write the best-of-n curve of the policy that the stage started from, for the page on reward hacking."""

import json
from collections.abc import Sequence
from typing import Any

from alignlab.config.schema import Config
from alignlab.evaluation.metrics import Metric, Record
from alignlab.evaluation.protocol import Context, Of
from alignlab.evaluation.replies import Item, Reply
from alignlab.runtime.files import write_text
from alignlab.runtime.run_files import BEST_OF_N

VERSION = 1
OF: Of = "stage"
METRICS: tuple[Metric, ...] = ()  # the curve is a file of its own


def applies(config: Config) -> str:
    """Return why the measure does not apply to a config; empty where it does."""
    return "" if config.dataset.pocket_world else "only the pocket world has gold scores"


def items(context: Context) -> list[Item]:
    """Ask nothing of the stage's own model."""
    return []


def score(replies: Sequence[Reply], context: Context) -> list[Record]:
    """Write the curve where the stage has a reward model; it has no records."""
    stage = context.stage
    if stage is None or (reward := stage.inputs.get("reward_model")) is None:
        return []
    from alignlab.evaluation.best_of_n import best_of_n
    from alignlab.models.sampling import Sampling

    method: Any = stage.method
    sampling = Sampling(method.temperature, 1.0, method.max_new_tokens, context.config.evaluation.batch_size)
    curve = best_of_n(stage.inputs["policy"], reward, context.config, sampling)
    write_text(stage.output / BEST_OF_N, json.dumps([point._asdict() for point in curve], indent=1))
    return []
