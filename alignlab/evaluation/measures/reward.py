"""Score completions with a reward model. It is a proxy: where it rises and gold does not, it is being exploited.

`reward/mean` is by the reward model of the run's own chain, if it has one. `reward/held_out` is by the one that the
config names, which trains no policy.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.evaluation.metrics import Record, mean
from alignlab.models.references import scorer_source

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Reply

VERSION = 1
METRICS = (mean("reward/mean", "higher"), mean("reward/held_out", "higher"))


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Score every completion with the reward model, and with the held-out one; nothing where there is none."""
    if context.reward_model is None:
        return
    scores = {"reward/mean": rewards(replies, context, context.reward_model)}
    if named := context.config.evaluation.reward_model:
        held_out = scorer_source(context.config, "evaluation.reward_model", named).path
        if held_out != context.reward_model:
            scores["reward/held_out"] = rewards(replies, context, held_out)
    for place, reply in enumerate(replies):
        yield reply.record({name: values[place] for name, values in scores.items()})


def rewards(replies: "Sequence[Reply]", context: "Context", folder: Path) -> list[float]:
    """Return the reward of every completion by one reward model."""
    from alignlab.rewards import load_reward_model

    prompts = [reply.item.turns for reply in replies]
    finished = [reply.completions[0].finished for reply in replies]
    model = load_reward_model(folder, context.config.hardware)
    return model.score(prompts, [reply.text for reply in replies], finished).total
