"""What the log-probabilities of an item's choices say: the likeliest choice, and the probabilities of all."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from alignlab.evaluation.replies import ChoiceScore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def likeliest(choices: Sequence[ChoiceScore]) -> int:
    """Return the place of the choice with the highest score; the first of equal ones."""
    return max(range(len(choices)), key=lambda place: choices[place].score)


def probabilities(choices: Sequence[ChoiceScore]) -> "Floats":  # [choices]
    """Return the probabilities of the choices, if one of them must be given: the softmax of their scores."""
    scores = np.array([choice.score for choice in choices])
    weights = np.exp(scores - scores.max())
    normalised: Floats = weights / weights.sum()
    return normalised
