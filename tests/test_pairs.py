"""The measures of a reward model, by hand: calibration, Brier's score, correlation with length, the two baselines."""

import numpy as np
import pytest
from command import config
from scipy.stats import pearsonr, spearmanr

from alignlab.evaluation.reward_model import (
    Rewards,
    bag_of_words,
    calibration,
    calibration_error,
    difference,
    lengths,
    longer_by,
    pearson,
    wins,
)

SETTINGS = config().evaluation
LOG3 = float(np.log(3)) + 1e-6  # odds of three to one; at log 3 itself rounding decides between two bins


def rewards(margins, chosen_length=None, rejected_length=None):
    margins = np.array(margins, float)
    ones = np.ones(len(margins))
    return Rewards(
        margins,
        np.zeros(len(margins)),
        ones if chosen_length is None else np.array(chosen_length, float),
        ones if rejected_length is None else np.array(rejected_length, float),
    )


def found(rows):
    return {row["name"]: row for row in rows}


def ids(n):
    return tuple(map(str, range(n)))


def test_a_margin_of_nothing_is_half_a_win():
    assert wins(np.array([2.0, -1.0, 0.0])).tolist() == [1.0, 0.0, 0.5]


@pytest.mark.parametrize(
    ("margins", "error", "brier"),
    [
        ([LOG3] * 3 + [-LOG3], 0.0, (3 * 0.25**2 + 0.75**2) / 4),  # three to one, and right three times in four
        ([LOG3] * 4, 0.25, 0.25**2),  # right every time, sure of three in four
        ([-LOG3] * 4, 0.75, 0.75**2),
        ([0.0] * 4, 0.0, 0.25),  # knows nothing, and says so
        ([LOG3, -9 * LOG3], (0.25 + 1.0) / 2, (0.25**2 + 1) / 2),  # two bins, each off its own way
    ],
)
def test_calibration_by_hand(margins, error, brier):
    rows = found(calibration(rewards(margins), ids(len(margins)), SETTINGS))
    assert rows["reward/calibration_error"]["value"] == pytest.approx(error, abs=1e-4)
    assert rows["reward/brier"]["value"] == pytest.approx(brier, abs=1e-4)


def test_gaps_of_one_bin_cancel_and_those_of_two_do_not():
    assert calibration_error(np.array([0.5, -0.5, 2.0])) == pytest.approx(0.5)
    assert calibration_error(np.array([0.0, 0.0, 2.0])) == 0


def test_correlation_with_length_is_scipys():
    random = np.random.default_rng(0)
    made = Rewards(*random.normal(size=(2, 40)), *random.integers(1, 60, (2, 40)).astype(float))
    scores, sizes = np.concatenate(made[:2]), np.concatenate(made[2:])
    rows = found(lengths(made, SETTINGS))
    assert rows["reward/length_pearson"]["value"] == pytest.approx(pearsonr(scores, sizes)[0], abs=1e-9)
    assert rows["reward/length_spearman"]["value"] == pytest.approx(spearmanr(scores, sizes)[0], abs=1e-9)


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
