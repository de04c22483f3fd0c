"""Intervals against figures from the literature, against laws, and against how often they cover the truth."""

import numpy as np
import pytest

from alignlab.evaluation.calibration import calibration_error
from alignlab.evaluation.metrics import BALANCE, UNBOUNDED, Scores, mean
from alignlab.evaluation.scores import difference, interval
from alignlab.evaluation.statistics import (
    Interval,
    effective_rows,
    mean_columns,
    mean_difference,
    mean_interval,
    mean_of,
    measure_difference,
    measure_interval,
    newcombe,
    newcombe_p,
    quantile,
    rate_difference,
    rate_interval,
    skew_p,
    student,
    wilson,
)


def near(found: Interval, value: float, low: float, high: float, digits: int = 4) -> bool:
    return [round(float(number), digits) for number in found] == [value, low, high]


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3."""
    assert near(wilson(successes, n, 0.95), round(successes / n, 4), low, high)


def test_wilson_never_has_zero_width_and_stays_in_range() -> None:
    for successes in (0, 30):
        rate, low, high = wilson(successes, 30, 0.95)
        assert 0 <= low <= rate <= high <= 1
        assert high - low > 0.1


def test_newcombe_gives_the_published_interval() -> None:
    """Response before and after therapy, Cavo et al. 2012, in Fagerland, Lydersen and Laake 2017, chapter 8."""
    assert near(newcombe((59, 6, 16, 80), 0.95), -0.0621, -0.1186, -0.0046)


def test_newcombe_by_hand_where_the_correction_takes_the_correlation_to_zero() -> None:
    """1 x 12 - 1 x 7 = 5 is less than 21 / 2, so the two Wilson intervals are added as if apart.

    2/21 is in (0.0265, 0.2891), 8/21 in (0.2075, 0.5912): sqrt(0.0687^2 + 0.2102^2) = 0.2212 below and
    sqrt(0.1938^2 + 0.1734^2) = 0.2601 above.
    """
    assert near(newcombe((1, 1, 7, 12), 0.95), -0.2857, -0.5069, -0.0256)


def test_newcombe_mirrors_when_the_two_models_change_places() -> None:
    there, back = newcombe((50, 20, 5, 25), 0.95), newcombe((50, 5, 20, 25), 0.95)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low))


@pytest.mark.parametrize("table", [(30, 0, 0, 0), (0, 0, 0, 30), (15, 0, 0, 15), (0, 30, 0, 0), (1, 0, 0, 299)])
def test_a_difference_of_rates_never_has_zero_width(table: tuple[int, int, int, int]) -> None:
    value, low, high = newcombe(table, 0.95)
    assert low <= value <= high
    assert high - low > 0.005


def test_a_difference_of_rates_counts_the_table_of_its_rows() -> None:
    now = [1] * 59 + [1] * 6 + [0] * 16 + [0] * 80
    then = [1] * 59 + [0] * 6 + [1] * 16 + [0] * 80
    assert rate_difference(now, then, 0.95).interval == newcombe((59, 6, 16, 80), 0.95)


def test_a_rate_with_a_half_in_it_is_refused() -> None:
    with pytest.raises(ValueError, match="0 and 1"):
        rate_difference([1, 0.5], [0, 0], 0.95)


@pytest.mark.parametrize("table", [(59, 6, 16, 80), (10, 9, 2, 20), (0, 30, 0, 0), (20, 1, 1, 20)])
def test_the_p_value_of_rates_is_the_confidence_at_which_the_interval_ends_at_0(table: tuple[int, ...]) -> None:
    p = newcombe_p(table)
    if 1e-9 < p < 1:
        ends = newcombe(table, 1 - p)[1:]
        assert min(abs(end) for end in ends) < 1e-6


def test_the_p_value_of_means_is_the_confidence_at_which_the_interval_ends_at_0() -> None:
    values = np.random.default_rng(0).exponential(1, 40) - 0.7
    low, high = mean_interval(values, 1 - skew_p(values))[1:]
    assert min(abs(low), abs(high)) < 1e-6


def test_values_without_skew_get_students_interval() -> None:
    assert mean_interval([1, 2, 3, 4, 5], 0.95) == pytest.approx(student([1, 2, 3, 4, 5], 0.95))
    values = [1, 2, 3, 4, 5]
    assert mean_difference(values, [0, 0, 0, 0, 0], 0.95).interval == pytest.approx(student(values, 0.95))


def test_one_row_has_no_interval_and_no_p_value() -> None:
    assert mean_interval([3.0], 0.95) == (3.0, -np.inf, np.inf)
    assert mean_difference([3.0], [1.0], 0.95).p == 1
    assert rate_interval([1.0] * 10, 0.95, ["a"] * 10).low < 0.3  # ten samples of one prompt


def test_values_that_all_change_alike_get_the_p_value_of_a_sign_test() -> None:
    assert mean_difference([2.0] * 5, [1.0] * 5, 0.95).p == 1 / 16
    assert mean_difference([2.0] * 5, [2.0] * 5, 0.95).p == 1


def test_copies_of_a_cluster_add_no_information() -> None:
    values = np.random.default_rng(5).normal(1, 1, 30)
    clusters = [place for place in range(30) for _ in range(4)]
    copied = measure_interval(mean_columns(np.repeat(values, 4)), mean_of, 0.95, clusters)
    assert copied == pytest.approx(mean_interval(values, 0.95))
    rates = (values > 1).astype(float)
    n = 30 * (quantile(0.95) / 2.04523) ** 2  # Student's quantile at 29 degrees of freedom
    assert effective_rows(np.repeat(rates, 4), clusters, 0.95) == pytest.approx(n * 29 / 30, rel=1e-4)


def test_weights_count_rows_as_often_as_they_say() -> None:
    """Perplexity by hand: 3 tokens of loss ln 2 and 1 of loss ln 32 make exp((3 ln 2 + ln 32) / 4) = 4."""
    found = measure_interval(mean_columns(np.log([2.0, 32.0]), [3, 1]), lambda sums: np.exp(mean_of(sums)), 0.95)
    assert found.value == pytest.approx(4)


def test_pairing_takes_out_what_the_prompts_have_in_common() -> None:
    generator = np.random.default_rng(3)
    prompt = generator.normal(0, 10, 200)
    then = prompt + generator.normal(0, 1, 200)
    now = prompt + 1 + generator.normal(0, 1, 200)
    found = mean_difference(now, then, 0.95).interval
    assert found.low > 0
    apart = mean_interval(now, 0.95)
    assert found.high - found.low < 0.2 * (apart.high - apart.low)  # sqrt(2) / 10 by the standard deviations


def test_a_difference_of_perplexities_is_between_the_perplexities() -> None:
    now, then, tokens = np.log([2.0, 2.0]), np.log([8.0, 8.0]), np.array([5.0, 9.0])
    of = lambda sums: np.exp(mean_of(sums))  # noqa: E731
    found = measure_difference(mean_columns(now, tokens), mean_columns(then, tokens), of, 0.95).interval
    assert found == pytest.approx((-6, -6, -6))


def test_student_by_hand() -> None:
    """Mean 3, sd 1.5811, t(4) 2.7764: half width 2.7764 * 1.5811 / sqrt(5) = 1.9632."""
    assert near(student([1, 2, 3, 4, 5], 0.95), 3.0, 1.0368, 4.9632)


def test_the_normal_deviate() -> None:
    assert quantile(0.95) == pytest.approx(1.959964, abs=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 10])
def test_intervals_cover_the_truth_as_often_as_they_say(rows: int) -> None:
    """300 experiments of 100 clusters; 95% has a standard error of 1.3 points there, so 91% to 99% is three of them.

    `benchmarks/intervals.py` runs more of them.
    """
    generator, hits = np.random.default_rng(rows), {"rate": 0, "paired rate": 0, "mean": 0, "paired mean": 0, "exp": 0}
    clusters = np.repeat(np.arange(100), rows)
    for _ in range(300):
        level = np.repeat(generator.random(100), rows)
        now, then = ((generator.random(100 * rows) < 0.4 * level).astype(float) for _ in range(2))
        hits["rate"] += covers(rate_interval(now, 0.95, clusters), 0.2)
        hits["paired rate"] += covers(rate_difference(now, then, 0.95, clusters).interval, 0)
        noise = generator.exponential(1, (2, 100 * rows))
        early, late = mean_columns(level + noise[0]), mean_columns(level + noise[1])
        hits["mean"] += covers(measure_interval(late, mean_of, 0.95, clusters), 1.5)
        hits["paired mean"] += covers(measure_difference(late, early, mean_of, 0.95, clusters).interval, 0)
        hits["exp"] += covers(measure_interval(late, lambda sums: np.exp(mean_of(sums)), 0.95, clusters), np.exp(1.5))
    assert all(0.91 <= count / 300 <= 0.99 for count in hits.values()), hits


def test_the_calibration_error_of_a_calibrated_model_is_0_and_of_another_is_its_gap() -> None:
    generator, zero, errors = np.random.default_rng(2), 0, []
    for _ in range(100):
        probability = generator.uniform(0.5, 1, 300)
        right = (generator.random(300) < probability).astype(float)
        zero += calibration_error(probability, right, 0.95).low == 0
        errors.append(calibration_error(np.minimum(probability + 0.15, 1.15), right, 0.95).value)
    assert zero >= 95
    assert np.mean(errors) == pytest.approx(0.15, abs=0.005)
    assert calibration_error(np.array([0.4]), np.array([1.0]), 0.95) == (pytest.approx(0.6), -np.inf, np.inf)


def covers(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def bias(*values: float, bounds: tuple[float, float] = BALANCE) -> Scores:
    ids = tuple(map(str, range(len(values))))
    return Scores(mean("bias", bounds=bounds), "bias", mean_columns(values), ids, ids)


def test_no_interval_leaves_the_bounds_of_its_metric() -> None:
    values = (1, 1, 1, 0, -1)
    assert interval(bias(*values, bounds=UNBOUNDED), 0.95).low < -1
    assert interval(bias(*values), 0.95).low == -1
    assert difference(bias(1, 1, 1, 1, -1), bias(*[-1] * 5), 0.95).interval.high == 2
    assert interval(bias(1), 0.95) == (1, -1, 1)


def test_clusters_that_agree_leave_room_for_others_that_were_missed() -> None:
    """Of 3 clusters, 1.96^2 / (3 + 1.96^2) = 0.5615 may have another value: 1 - 0.5615 * 2 = -0.1230."""
    assert near(interval(bias(1, 1, 1), 0.95), 1, -0.1230, 1)
    assert near(interval(bias(0, 0, 0), 0.95), 0, -0.5615, 0.5615)
    assert near(interval(bias(1, 1, 1, bounds=UNBOUNDED), 0.95), 1, 1, 1)


def test_the_interval_of_a_bounded_mean_covers_where_most_rows_agree() -> None:
    """Without the room for missed values, 5 rows of which 1 in 10 is not 1 cover in 67 of 100 samples."""
    generator = np.random.default_rng(0)
    found = [interval(bias(*generator.choice([-1, 0, 1], 5, p=[0.1, 0.1, 0.8])), 0.95) for _ in range(300)]
    assert sum(one.low <= 0.7 <= one.high for one in found) / 300 > 0.95
