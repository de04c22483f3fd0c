"""The arithmetic of the comparison with trl's PPOTrainer; the comparison itself is `make bench-ppo`."""

import sys

import pytest
from command import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
sys.path.insert(0, str(ROOT / "benchmarks" / "ppo_vs_trl"))
from equal_kl import Curve, at, common, curve, difference
from sides import Told
from speed import ratios, speed, table

MARKS = [
    {"at": 10.0, "rollouts": 5.0},  # the first update warms up
    {"at": 18.0, "rollouts": 6.0, "reward": 2.0, "policy, value and reference": 1.0},
    {"at": 22.0, "rollouts": 7.0, "reward": 3.0, "policy, value and reference": 2.0, "update": 99.0},
]


def test_speed_is_worked_out_from_the_updates_after_the_first():
    found = speed(Told(24, MARKS, 5, []))
    assert found.rate == 24 / 6  # 12 seconds for two updates
    assert found.parts == {"rollouts": 1.0, "reward": 1.5, "policy, value and reference": 1.0, "update": 2.5}


def told(seconds, peak):
    return speed(Told(12, [{"at": 0.0}, {"at": seconds}], peak, []))


def test_ratios_are_taken_within_a_round_and_a_target_that_is_missed_is_said():
    found = {
        "trl": [told(6, 200e6), told(12, 210e6), told(6, 200e6)],
        "separate": [told(4, 90e6), told(6, 80e6), told(6, 80e6)],
        "shared": [told(3, 250e6), told(6, 70e6), told(3, 70e6)],
    }
    assert ratios(found, "separate") == pytest.approx([1.5, 2.0, 1.0])
    lines = list(table(found))
    assert "| alignlab, `value=separate` | 2.00 (2.00 to 3.00) | 1.50, 2.00, 1.00 | 90 MB |" in lines
    assert any(line.startswith("- met: alignlab, `value=separate`") for line in lines)
    assert any(line.startswith("- **not met**: alignlab, `value=shared`") for line in lines)
    assert "- **not met**: peak memory lower than trl's in both" in lines


def test_a_curve_is_smoothed_and_keeps_what_goes_further_than_before():
    rows = [{"kl": kl, "score": score} for kl, score in ((0.0, 1.0), (2.0, 3.0), (0.0, 5.0), (6.0, 1.0))]
    assert curve(rows, smooth=2) == Curve([1.0, 3.0], [2.0, 3.0])  # the window in between goes no further


def test_curves_are_read_between_their_points_and_at_a_kl_that_all_have_passed():
    one, other = Curve([0.0, 2.0, 4.0], [1.0, 2.0, 0.0]), Curve([1.0, 3.0], [5.0, 6.0])
    assert [at(one, kl) for kl in (-1.0, 0.5, 3.0, 9.0)] == [1.0, 1.25, 1.0, 0.0]
    found = common({"trl": [one], "separate": [other]})
    assert (found[0], found[-1], len(found)) == (1.0, 3.0, 10)


def test_the_interval_of_a_difference_by_hand():
    ours, theirs = [1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 1.0, 2.0, 3.0, 4.0]
    # both variances are 2.5, so that Welch's freedom is 8 and the interval 2.306 * sqrt(2.5 / 5 + 2.5 / 5) wide
    assert difference(ours, theirs) == pytest.approx((1.0, 1.0 - 2.306, 1.0 + 2.306))
    assert difference([2.0] * 5, [1.0] * 5) == (1.0, 1.0, 1.0)
