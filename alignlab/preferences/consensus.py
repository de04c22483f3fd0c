"""One label from many: what several labelers of the same pairs agree on, and how far each of them can be trusted.

`majority` counts heads. `dawid_skene` (Dawid and Skene 1979, by crowd-kit) estimates, with no truth at hand, how often
each labeler prefers the better answer where it stands first and where it stands second, and weighs the votes by it: so
it knows a labeler who likes whatever stands first. Rankings are put together by `borda` (Borda 1781), and scores for
whole answers from pairs by `bradley_terry` (Bradley and Terry 1952).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

FIRST, SECOND = "first", "second"
ROUNDS = 100  # of expectation and maximisation, at most


class Vote(NamedTuple):
    """One labeler's word on a pair: whether the answer that was named first is the better one."""

    item: str
    labeler: str
    first: bool


class Labeler(NamedTuple):
    """What is estimated of a labeler: how often they are right, and how much oftener than half they say "first".

    `bias` is the mean of P(says first | first is better) and P(says first | second is better), less a half.
    """

    reliability: float
    bias: float


class Consensus(NamedTuple):
    """The probability that the first answer is better for each item, and what is known of the labelers."""

    labels: dict[str, float]
    labelers: dict[str, Labeler]


def majority(votes: Sequence[Vote]) -> dict[str, float]:
    """The share of votes for the first answer, item by item."""
    found: dict[str, list[bool]] = defaultdict(list)
    for vote in votes:
        found[vote.item].append(vote.first)
    return {item: fmean(said) for item, said in found.items()}


def dawid_skene(votes: Sequence[Vote]) -> Consensus:
    """Weigh votes by what their agreement tells of each labeler."""
    from crowdkit.aggregation import DawidSkene

    model = DawidSkene(n_iter=ROUNDS).fit(frame(votes))
    shares: Any = model.probas_
    prior: Any = model.priors_
    labels = {str(item): float(share) for item, share in shares.get(FIRST, shares.iloc[:, 0] * 0.0).items()}
    known = {label: float(prior.get(label, 0.0)) for label in (FIRST, SECOND)}
    return Consensus(labels, labelers_of(model.errors_, known))


def labelers_of(errors: Any, prior: Mapping[str, float]) -> dict[str, Labeler]:
    """Read reliabilities and biases from the table of P(said | truth), whose rows are labelers and what they said."""
    found = {}
    for name in dict.fromkeys(errors.index.get_level_values(0)):
        says = {
            (said, truth): float(errors.loc[(name, said), truth])
            if (name, said) in errors.index and truth in errors.columns
            else 0.0
            for said in (FIRST, SECOND)
            for truth in (FIRST, SECOND)
        }
        right = sum(prior[truth] * says[truth, truth] for truth in (FIRST, SECOND))
        found[str(name)] = Labeler(right, (says[FIRST, FIRST] + says[FIRST, SECOND]) / 2 - 0.5)
    return found


def alpha(votes: Sequence[Vote]) -> float:
    """Krippendorff's alpha: 1 is full agreement, 0 what chance gives (Krippendorff 2004, chapter 11)."""
    from crowdkit.metrics.data import alpha_krippendorff

    return float(alpha_krippendorff(frame(votes)))


def frame(votes: Sequence[Vote]) -> Any:
    """Votes as crowd-kit takes them."""
    import pandas

    rows = [(vote.item, vote.labeler, FIRST if vote.first else SECOND) for vote in votes]
    return pandas.DataFrame(rows, columns=["task", "worker", "label"])


def borda(rankings: Sequence[Sequence[str]]) -> list[str]:
    """Order answers by their mean place in several rankings, best first; equals stay as the first has them."""
    places: dict[str, list[int]] = defaultdict(list)
    for ranking in rankings:
        for place, answer in enumerate(ranking):
            places[answer].append(place)
    return sorted(rankings[0], key=lambda answer: fmean(places[answer]))


def bradley_terry(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """A score for each answer from pairs of (better, worse), scores adding up to 1."""
    import pandas
    from crowdkit.aggregation import BradleyTerry

    rows = [("all", better, worse, better) for better, worse in pairs]
    found = BradleyTerry(n_iter=ROUNDS).fit_predict(
        pandas.DataFrame(rows, columns=["worker", "left", "right", "label"])
    )
    return {str(answer): float(score) for answer, score in found.items()}


def kendall(first: Sequence[str], second: Sequence[str]) -> float:
    """Kendall's tau of two rankings of the same answers: 1 the same, -1 turned round."""
    from scipy.stats import kendalltau

    return float(kendalltau(range(len(first)), [second.index(answer) for answer in first]).statistic)
