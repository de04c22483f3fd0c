"""Measure the length of completions in tokens, with the end-of-turn token, and the rate of those that have one.

Neither is good or bad in itself. A policy that exploits a reward for length shows here.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from alignlab.evaluation.metrics import Record, mean, rate

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Context
    from alignlab.evaluation.replies import Reply

VERSION = 1
METRICS = (mean("length/mean"), rate("length/finished"))


def score(replies: "Sequence[Reply]", context: "Context") -> Iterator[Record]:
    """Count the tokens of every completion; a server does not tell them."""
    for reply in replies:
        one = reply.completions[0]
        tokens = {} if one.text and not one.tokens else {"length/mean": len(one.tokens)}
        yield reply.record({**tokens, "length/finished": one.finished})
