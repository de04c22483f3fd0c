"""The measures of a reward model, by hand: calibration, Brier's score, correlation with length, the two baselines."""

import numpy as np
import pytest
from command import config
from scipy.stats import pearsonr, spearmanr

from alignlab.evaluation.reward_model import (
    bag_of_words,
    difference,
    longer_by,
    moments,
    pearson,
    ranks,
    wins,
)

SETTINGS = config().evaluation


def test_a_margin_of_nothing_is_half_a_win():
    assert wins(np.array([2.0, -1.0, 0.0])).tolist() == [1.0, 0.0, 0.5]


def test_correlation_with_length_is_scipys():
    random = np.random.default_rng(0)
    scores, sizes = random.normal(size=(40, 2)), random.integers(1, 60, (40, 2)).astype(float)
    expected = pearsonr(scores.ravel(), sizes.ravel())[0], spearmanr(scores.ravel(), sizes.ravel())[0]
    columns = moments("x", scores, sizes), moments("x", ranks(scores), ranks(sizes))
    values = [pearson(np.array([column.sum() for column in one.values()])) for one in columns]
    assert values == pytest.approx(expected, abs=1e-9)


def test_a_reward_that_is_length_correlates_wholly_and_one_that_never_varies_not_at_all():
    assert pearson(np.array([3.0, 6.0, 6.0, 14.0, 14.0, 14.0])) == pytest.approx(1)  # x = y = 1, 2, 3
    assert pearson(np.array([3.0, 6.0, 6.0, 12.0, 14.0, 12.0])) == 0  # x is 2 throughout


def test_what_one_rule_is_ahead_by_is_taken_pair_by_pair():
    now, then = np.array([1.0, 1.0, 1.0, 0.0] * 25), np.array([1.0, 0.0, 1.0, 0.0] * 25)
    gap = difference(now, then, SETTINGS)
    assert gap.value == pytest.approx(0.25)
    assert 0 < gap.low < 0.25 < gap.high


def test_the_baselines_learn_the_rule_that_there_is():
    words = ["red", "blue", "green", "grey"]
    train = [{"prompt": "?", "chosen": f"yes {a} {a}", "rejected": f"no {a}"} for a in words * 5]
    test = [{"prompt": "?", "chosen": "yes it is", "rejected": "no it is not so"}]
    assert longer_by(train).tolist() == [1.0] * 20
    assert longer_by(test).tolist() == [-1.0]  # the length would get it wrong
    assert bag_of_words(train, train, test)[0] > 0  # the words get it right
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in test]
    assert bag_of_words(train, train, turned)[0] == pytest.approx(-bag_of_words(train, train, test)[0])
