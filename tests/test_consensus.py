"""Consensus by hand, and on labelers whose reliabilities are known."""

from random import Random

import numpy as np
import pytest

from alignlab.evaluation.statistics import mean_difference
from alignlab.preferences.consensus import Vote, alpha, bradley_terry, dawid_skene, majority

RELIABILITIES = (0.6, 0.6875, 0.775, 0.8625, 0.95)
ITEMS = 1000


def world(seed, reliabilities=RELIABILITIES, bias=0.0):
    """Pairs with a truth, and five labelers who put each in the right order with a probability of their own."""
    random = Random(seed)
    truth = {str(item): random.random() < 0.5 for item in range(ITEMS)}
    votes = []
    for item, first in truth.items():
        for number, reliability in enumerate(reliabilities):
            said = first if random.random() < reliability else not first
            votes.append(Vote(item, f"labeler {number}", True if random.random() < bias else said))
    return truth, votes


def right(labels, truth):
    return np.array(
        [(labels[item] > 0.5) == first if labels[item] != 0.5 else 0.5 for item, first in truth.items()], float
    )


@pytest.mark.parametrize("seed", [100, 101, 102])
def test_votes_are_worth_what_their_labelers_are(seed):
    truth, votes = world(seed)
    found = dawid_skene(votes)
    for number, reliability in enumerate(RELIABILITIES):
        assert found.labelers[f"labeler {number}"].reliability == pytest.approx(reliability, abs=0.05)
        assert found.labelers[f"labeler {number}"].bias == pytest.approx(0, abs=0.05)
    weighed, counted = right(found.labels, truth), right(majority(votes), truth)
    best = right({vote.item: float(vote.first) for vote in votes if vote.labeler == "labeler 4"}, truth)
    gain = mean_difference(weighed, counted, 0.95).interval
    assert gain.low > 0
    assert weighed.mean() >= best.mean() - 0.005
    assert mean_difference(weighed, best, 0.95).interval.high > 0


def test_a_liking_for_the_first_place_is_found_out():
    _, votes = world(100, (0.9, 0.9, 0.9, 0.9), bias=0.0)
    liking = [
        vote._replace(first=True) if vote.labeler == "labeler 0" and int(vote.item) % 2 else vote for vote in votes
    ]
    found = dawid_skene(liking).labelers
    assert found["labeler 0"].bias == pytest.approx(0.25, abs=0.05)  # half of their words say nothing but "first"
    assert found["labeler 1"].bias == pytest.approx(0, abs=0.05)


def test_a_majority_by_hand():
    votes = [
        Vote("a", "x", True),
        Vote("a", "y", True),
        Vote("a", "z", False),
        Vote("b", "x", True),
        Vote("b", "y", False),
    ]
    assert majority(votes) == {"a": pytest.approx(2 / 3), "b": 0.5}


def test_labelers_who_all_say_the_same_agree_wholly():
    votes = [Vote(str(item), name, item % 2 == 0) for item in range(6) for name in "xy"]
    assert alpha(votes) == pytest.approx(1)
    assert dawid_skene(votes).labels["0"] == pytest.approx(1, abs=1e-6)
    assert dawid_skene(votes).labels["1"] == pytest.approx(0, abs=1e-6)
    always = [Vote(str(item), name, True) for item in range(3) for name in "xy"]
    assert set(dawid_skene(always).labels.values()) == {1.0}


def test_alpha_by_hand():
    """Two labelers, two labels, three items: one disagreement. D_o = 2/6, D_e = 2 * 3 * 3 / (6 * 5)."""
    votes = [Vote("a", "x", True), Vote("a", "y", True), Vote("b", "x", False), Vote("b", "y", False)]
    votes += [Vote("c", "x", True), Vote("c", "y", False)]
    assert alpha(votes) == pytest.approx(1 - (2 / 6) / (18 / 30))


def test_scores_from_pairs_by_hand():
    scores = bradley_terry([("a", "b")] * 3 + [("b", "a")])
    assert scores["a"] / scores["b"] == pytest.approx(3, rel=1e-3)  # odds of 3 to 1
