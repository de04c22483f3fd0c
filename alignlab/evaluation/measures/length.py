"""Measure the length of completions in tokens, with the end-of-turn token, and the rate of those that have one.

Neither is good or bad in itself. A policy that exploits a reward for length shows here.
"""

from typing import TYPE_CHECKING

import numpy as np

from alignlab.config.schema import Config
from alignlab.evaluation.scores import Scores

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Subject


def applies(config: Config) -> str:
    """Return an empty text: the measure applies to every config."""
    return ""


def measure(subject: "Subject") -> list[Scores]:
    """Count the tokens of every completion."""
    ids = tuple(sample.id for sample in subject.samples)
    lengths = np.array([sample.tokens for sample in subject.samples], float)
    finished = np.array([sample.finished for sample in subject.samples], float)
    return [
        Scores("length/mean", lengths, ids, False, "neither"),
        Scores("length/finished", finished, ids, True, "neither"),
    ]
