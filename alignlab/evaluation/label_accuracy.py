"""How right labels are, where the world knows: of the pairs that gold does not tie, how many are in the right order.

Pairs of the same prompt have much in common, so intervals are over prompts, each with as many pairs as it has. A label
that prefers neither answer is half right.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from alignlab.config.evaluation import Evaluation
from alignlab.evaluation.statistics import Interval, bootstrap_mean, paired_difference

Pairs = Mapping[tuple[str, int, int], float]  # the probability that the first of an item's answers i < j is better


class Rightness(NamedTuple):
    """How often labels put two answers in the right order, or how much oftener than others; `pairs` that have one."""

    name: str
    interval: Interval
    pairs: int


def truth(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int, int], bool]:
    """For every two answers of unequal worth, whether the first is the better one."""
    from alignlab.pocket.gold import judge

    found = {}
    for row in rows:
        scores = [judge(row["prompt"], one["text"], one["finished"]).score for one in row["answers"]]
        for i in range(len(scores)):
            for j in range(i + 1, len(scores)):
                if scores[i] != scores[j]:
                    found[row["id"], i, j] = scores[i] > scores[j]
    return found


def rightness(
    labels: Mapping[str, Pairs],
    known: Mapping[tuple[str, int, int], bool],
    baselines: Sequence[str],
    settings: Evaluation,
) -> list[Rightness]:
    """How right each set of labels is, and how much more than each of the others the first one is.

    `baselines` are compared besides the best of the rest.
    """
    if not known:
        return []
    shares = {name: by_prompt(own, known) for name, own in labels.items()}
    own, *others = shares
    weights = np.array([count for _, count in shares[own]], float)
    values = {name: np.array([share for share, _ in found]) for name, found in shares.items()}
    given = (settings.resamples, settings.confidence, 0)
    found = [Rightness(name, bootstrap_mean(one, *given, weights=weights), len(known)) for name, one in values.items()]
    rest = [one for one in others if one not in baselines]
    best = [max(rest, key=lambda name: float(np.average(values[name], weights=weights)))] if rest else []
    for other in [*(one for one in baselines if one in values), *best]:
        gain = paired_difference(values[own], values[other], *given, weights=(weights, weights))
        found.append(Rightness(f"{own} − {other}", gain, len(known)))
    return found


def by_prompt(own: Pairs, known: Mapping[tuple[str, int, int], bool]) -> list[tuple[float, int]]:
    """The share of a prompt's pairs that are in the right order, and how many pairs it has; prompts in their order."""
    found: dict[str, list[float]] = {}
    for (item, i, j), first in known.items():
        share = own.get((item, i, j), 0.5)
        right = 0.5 if share == 0.5 else float((share > 0.5) == first)
        found.setdefault(item, []).append(right)
    return [(sum(right) / len(right), len(right)) for right in found.values()]
