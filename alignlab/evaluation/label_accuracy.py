"""The accuracy of labels where gold scores exist: the share of pairs with different gold scores in the right order.

Pairs of the same prompt are not independent, so intervals are over prompts, weighted by their number of pairs. A label
without a preference counts as half right.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from alignlab.config.evaluation import Evaluation
from alignlab.evaluation.statistics import Interval, mean_difference, mean_interval

Pair = tuple[str, int, int]  # a prompt's id and the places i < j of two of its completions
Labels = Mapping[Pair, float]  # the probability that completion i is better


class Accuracy(NamedTuple):
    """The accuracy of a set of labels, or the difference of two accuracies, over `pairs` pairs."""

    name: str
    interval: Interval
    pairs: int


def gold_order(rows: Sequence[Mapping[str, Any]]) -> dict[Pair, bool]:
    """Return for every two completions of different gold scores whether the first is the better one."""
    from alignlab.pocket.gold import judge

    order = {}
    for row in rows:
        scores = [judge(row["prompt"], answer["text"], answer["finished"]).score for answer in row["answers"]]
        for i, j in combinations(range(len(scores)), 2):
            if scores[i] != scores[j]:
                order[row["id"], i, j] = scores[i] > scores[j]
    return order


def label_accuracy(
    labels: Mapping[str, Labels], gold: Mapping[Pair, bool], baselines: Sequence[str], settings: Evaluation
) -> list[Accuracy]:
    """Compute the accuracy of each set of labels, then the differences of the first set to some of the others.

    Those are the `baselines` and the most accurate of the rest.
    """
    if not gold:
        return []
    shares = {name: by_prompt(own, gold) for name, own in labels.items()}
    first, *others = shares
    weights = np.array([count for _, count in shares[first]], float)
    values = {name: np.array([share for share, _ in own]) for name, own in shares.items()}
    accuracies = [
        Accuracy(name, mean_interval(own, settings.confidence, weights), len(gold)) for name, own in values.items()
    ]
    rest = [name for name in others if name not in baselines]
    best = [max(rest, key=lambda name: float(np.average(values[name], weights=weights)))] if rest else []
    for other in [*(name for name in baselines if name in values), *best]:
        gain = mean_difference(values[first], values[other], settings.confidence, weights)
        accuracies.append(Accuracy(f"{first} − {other}", gain.interval, len(gold)))
    return accuracies


def by_prompt(labels: Labels, gold: Mapping[Pair, bool]) -> list[tuple[float, int]]:
    """Return for each prompt the share of its pairs that are in the right order, and its number of pairs."""
    right: dict[str, list[float]] = {}
    for (prompt, i, j), first_is_better in gold.items():
        probability = labels.get((prompt, i, j), 0.5)
        score = 0.5 if probability == 0.5 else float((probability > 0.5) == first_is_better)
        right.setdefault(prompt, []).append(score)
    return [(sum(scores) / len(scores), len(scores)) for scores in right.values()]
