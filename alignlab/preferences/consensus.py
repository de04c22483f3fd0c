"""One label from the votes of several labelers, and how reliable each of them is.

`majority` counts votes. `dawid_skene` (Dawid and Skene 1979, by crowd-kit) estimates without ground truth how often
each labeler prefers the better answer where it is first and where it is second, and weighs the votes by it; so it
detects a labeler who always prefers the first. `bradley_terry` (Bradley and Terry 1952) scores answers by pairs.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

FIRST, SECOND = "first", "second"
ITERATIONS = 100  # of expectation maximisation, at most


class Vote(NamedTuple):
    """One labeler's vote on a pair of answers."""

    item: str
    labeler: str
    first: bool  # the first answer is better


class Labeler(NamedTuple):
    """The estimated quality of a labeler."""

    reliability: float  # the probability of the right vote
    bias: float  # the mean of P(votes first | first is better) and P(votes first | second is better), less 0.5


class Consensus(NamedTuple):
    """The labels of all pairs, and the quality of the labelers."""

    labels: dict[str, float]  # the probability that the first answer is better
    labelers: dict[str, Labeler]


def majority(votes: Sequence[Vote]) -> dict[str, float]:
    """Return the share of votes for the first answer, item by item."""
    by_item: dict[str, list[bool]] = defaultdict(list)
    for vote in votes:
        by_item[vote.item].append(vote.first)
    return {item: fmean(first) for item, first in by_item.items()}


def dawid_skene(votes: Sequence[Vote]) -> Consensus:
    """Estimate labels and labelers from the votes."""
    from crowdkit.aggregation import DawidSkene

    model = DawidSkene(n_iter=ITERATIONS).fit(frame(votes))
    shares: Any = model.probas_
    prior: Any = model.priors_
    labels = {str(item): float(share) for item, share in shares.get(FIRST, shares.iloc[:, 0] * 0.0).items()}
    known = {label: float(prior.get(label, 0.0)) for label in (FIRST, SECOND)}
    return Consensus(labels, labelers_of(model.errors_, known))


def labelers_of(errors: Any, prior: Mapping[str, float]) -> dict[str, Labeler]:
    """Compute reliabilities and biases from a table of P(vote | truth), whose rows are labelers and their votes."""
    labelers = {}
    for name in dict.fromkeys(errors.index.get_level_values(0)):
        shares = {
            (vote, truth): float(errors.loc[(name, vote), truth])
            if (name, vote) in errors.index and truth in errors.columns
            else 0.0
            for vote in (FIRST, SECOND)
            for truth in (FIRST, SECOND)
        }
        right = sum(prior[truth] * shares[truth, truth] for truth in (FIRST, SECOND))
        labelers[str(name)] = Labeler(right, (shares[FIRST, FIRST] + shares[FIRST, SECOND]) / 2 - 0.5)
    return labelers


def alpha(votes: Sequence[Vote]) -> float:
    """Return Krippendorff's alpha: 1 is full agreement, 0 that of chance (Krippendorff 2004, chapter 11)."""
    from crowdkit.metrics.data import alpha_krippendorff

    return float(alpha_krippendorff(frame(votes)))


def frame(votes: Sequence[Vote]) -> Any:
    """Return votes as the data frame that crowd-kit reads."""
    import pandas

    rows = [(vote.item, vote.labeler, FIRST if vote.first else SECOND) for vote in votes]
    return pandas.DataFrame(rows, columns=["task", "worker", "label"])


def bradley_terry(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Return a score for each answer from pairs of (better, worse); the scores add up to 1."""
    import pandas
    from crowdkit.aggregation import BradleyTerry

    rows = [("all", better, worse, better) for better, worse in pairs]
    scores = BradleyTerry(n_iter=ITERATIONS).fit_predict(
        pandas.DataFrame(rows, columns=["worker", "left", "right", "label"])
    )
    return {str(answer): float(score) for answer, score in scores.items()}
