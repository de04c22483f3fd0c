"""How long the answers are, in tokens with the end-of-turn token, and how many come to an end by themselves.

Neither is good or bad in itself; a reward that grows with length alone shows here.
"""

from typing import TYPE_CHECKING

import numpy as np

from alignlab.config.schema import Config
from alignlab.evaluation.scores import Scores

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Subject


def applies(config: Config) -> str:
    """Every model has lengths."""
    return ""


def measure(subject: "Subject") -> list[Scores]:
    """Count the tokens of every answer."""
    ids = tuple(sample.id for sample in subject.samples)
    lengths = np.array([sample.tokens for sample in subject.samples], float)
    finished = np.array([sample.finished for sample in subject.samples], float)
    return [
        Scores("length/mean", lengths, ids, False, "neither"),
        Scores("length/finished", finished, ids, True, "neither"),
    ]
