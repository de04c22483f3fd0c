"""Win rates at equal length: a logistic regression of wins on differences of length (Dubois et al. 2024, 2404.04475).

Judges prefer longer answers, so a policy that only writes more wins. The regression says which part of the win rate a
difference of length explains; its value at no difference is the length-controlled win rate. This module depends on no
model, config or file.
"""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

RIDGE = 1e-2  # keeps the coefficient of length finite where length alone decides
ROUNDS = 50  # of Newton's method, which needs about five


def controlled_wins(wins: "ArrayLike", lengths: "ArrayLike", others: "ArrayLike") -> "Floats":  # [n]
    """Return a value per comparison whose mean is the length-controlled win rate.

    `wins` are in [0, 1], 0.5 for a tie. The values are the mean plus each comparison's influence on it, so that their
    spread gives the standard error of the regression.
    """
    won, difference = np.asarray(wins, float), np.asarray(lengths, float) - np.asarray(others, float)
    spread = float(difference.std()) or 1.0
    features = np.stack([np.ones_like(won), np.tanh(difference / spread)], axis=1)  # [n, 2]
    weights = np.zeros(2)
    penalty = np.array([RIDGE, RIDGE])
    for _ in range(ROUNDS):
        chance = sigmoid(features @ weights)
        slope = (features * (chance * (1 - chance))[:, None]).T @ features + np.diag(penalty)
        step = np.linalg.solve(slope, features.T @ (won - chance) - penalty * weights)
        weights = weights + step
        if np.abs(step).max() < 1e-10:
            break
    chance = sigmoid(features @ weights)
    slope = (features * (chance * (1 - chance))[:, None]).T @ features + np.diag(penalty)
    rate = float(sigmoid(weights[:1])[0])
    moves = (features * (won - chance)[:, None]) @ np.linalg.inv(slope)[:, 0] * rate * (1 - rate) * len(won)
    values: Floats = rate + moves - moves.mean()
    return values


def sigmoid(values: "Floats") -> "Floats":
    """Compute 1 / (1 + exp(-x))."""
    chance: Floats = 1 / (1 + np.exp(-np.clip(values, -30, 30)))
    return chance
