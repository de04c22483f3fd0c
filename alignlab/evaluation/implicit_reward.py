"""The implicit reward of a policy on held-out pairs: beta times its log-ratio to the reference (Rafailov et al. 2023).

It says whether DPO's policy prefers the chosen completions of pairs that it has not learned from. The reference is the
model that the stage started from, whose own accuracy would be a half.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from alignlab.evaluation.metrics import Record, mean, rate
from alignlab.evaluation.protocol import Context
from alignlab.evaluation.replies import Reply
from alignlab.evaluation.reward_model import wins

METRICS = (rate("pairs/accuracy", "higher"), mean("pairs/margin", "higher"))


def records(replies: Sequence[Reply], context: Context) -> Iterator[Record]:
    """Yield whether each pair's chosen completion has the larger implicit reward, and by how much."""
    from alignlab.evaluation.subjects import LanguageModel

    assert context.stage
    reference = LanguageModel(context.stage.inputs["policy"].path, context.config.hardware)
    before = context.ask([reply.item for reply in replies], reference)
    for now, then in zip(replies, before, strict=True):
        ratio = [one.score - other.score for one, other in zip(now.choices, then.choices, strict=True)]
        margin = context.stage.method.beta * (ratio[0] - ratio[1])
        values = {"pairs/accuracy": float(wins(np.array(margin))), "pairs/margin": margin}
        yield now.record(values, shown=now.item.choices[0])
