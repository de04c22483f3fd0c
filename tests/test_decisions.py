"""What a report may say of differences: Holm by hand, power and false alarms by simulation, corrected rates."""

import numpy as np
import pytest
from command import config

from alignlab.evaluation.decisions import clusters_needed, detectable, detectable_rate, holm, not_worse, rogan_gladen
from alignlab.evaluation.metrics import Scores, rate
from alignlab.evaluation.scores import measurements
from alignlab.evaluation.statistics import Interval, mean_columns, mean_difference, rate_difference


def test_holm_by_hand() -> None:
    """0.01 * 4, 0.02 * 3 = 0.06, 0.03 * 2 = 0.06, and 0.5 stays."""
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1, 1]


def test_a_loss_within_the_margin_is_no_loss_only_where_the_interval_says_so() -> None:
    assert not_worse(Interval(-0.01, -0.04, 0.02), True, 0.05)
    assert not not_worse(Interval(-0.01, -0.2, 0.18), True, 0.05)  # too few rows to tell
    assert not_worse(Interval(0.01, -0.02, 0.04), False, 0.05)


def test_four_times_the_prompts_show_half_the_change() -> None:
    assert clusters_needed(0.2, 60, 0.1) == 240


@pytest.mark.parametrize("tests", [1, 19])
@pytest.mark.parametrize("clusters", [20, 60, 300])
def test_a_change_of_the_detectable_size_is_seen_in_four_of_five_runs(clusters: int, tests: int) -> None:
    """As printed by a comparison of a model with itself: of a mean, and of a rate of 30%."""
    generator, seen = np.random.default_rng(clusters), ([], [])
    for _ in range(300):
        size = detectable(mean_difference(*generator.normal(0, 1, (2, clusters)), 0.95).error, clusters, 0.95, tests)
        now = generator.normal(size, 1, clusters)
        seen[0].append(mean_difference(now, generator.normal(0, 1, clusters), 0.95).p < 0.05 / tests)
        old = rate_difference(*(generator.random((2, clusters)) < 0.3).astype(float), 0.95)
        share = 0.3 + detectable_rate(old.table, 0.95, tests)  # type: ignore[arg-type]
        if share <= 1:
            now, then = ((generator.random(clusters) < level).astype(float) for level in (share, 0.3))
            seen[1].append(rate_difference(now, then, 0.95).p < 0.05 / tests)
    assert all(0.73 <= np.mean(one) <= 0.87 for one in seen)


def test_a_rate_of_few_prompts_among_many_measures_has_no_detectable_change() -> None:
    """10 of 20 prompts: of 200 measures not even a change to all of them is seen that often."""
    assert detectable_rate((5, 5, 5, 5), 0.95) < 0.5
    assert detectable_rate((5, 5, 5, 5), 0.95, 200) == np.inf


def test_a_model_compared_with_itself_is_rarely_worse_in_any_of_19_measures() -> None:
    """A sample of 150 runs has a standard error of 1.8 points at 5%."""
    generator, settings, worse = np.random.default_rng(1), config().evaluation, 0
    ids = tuple(map(str, range(60)))
    for _ in range(150):
        level = generator.random((19, 60))

        def scores() -> dict[str, Scores]:
            drawn = (generator.random((19, 60)) < level).astype(float)  # noqa: B023
            columns = map(mean_columns, drawn)
            return {str(k): Scores(rate(str(k), "higher"), str(k), one, ids, ids) for k, one in enumerate(columns)}

        rows = measurements(scores(), scores(), None, settings)
        changes = [row["difference"]["before"] for row in rows]
        worse += any(change["p_adjusted"] < 0.05 and change["value"] < 0 for change in changes)
        assert all(change["detectable"] > 0.1 for change in changes)
    assert worse / 150 <= 0.06


def scores_of(name: str, changed: float) -> tuple[Scores, Scores]:
    """Return a rate of 100 rows before and after; `changed` is the share of rows that become 1."""
    ids = tuple(map(str, range(100)))
    after = np.arange(100) < 100 * changed
    return tuple(Scores(rate(name, "lower"), name, mean_columns(one), ids, ids) for one in (np.zeros(100), after))  # type: ignore[return-value]


def test_primary_measures_alone_are_corrected_for_their_number_and_tested() -> None:
    """Two primary measures: Holm doubles the smaller p-value; the third keeps its own interval, and no verdict."""
    pairs = {name: scores_of(name, share) for name, share in (("a", 0.1), ("b", 0.05), ("c", 0.3))}
    then, now = ({name: pair[side] for name, pair in pairs.items()} for side in (0, 1))
    rows = measurements(now, then, None, config("evaluation.primary=[b,missing,a]").evaluation)
    a, b, c = (row["difference"]["before"] for row in rows)
    assert [row["primary"] for row in rows] == [2, 0, None]
    assert (a["p_adjusted"], b["p_adjusted"], c["p_adjusted"]) == (2 * a["p"], b["p"], None)
    assert a["table"] == (0, 10, 0, 90)
    assert a["detectable"] == detectable_rate((0, 10, 0, 90), 0.95, 2)
    assert c["detectable"] == detectable_rate((0, 30, 0, 70), 0.95)


@pytest.mark.parametrize("primary", ["[]", "[missing]"])
def test_all_measures_are_primary_where_none_of_the_list_was_compared(primary: str) -> None:
    pairs = [scores_of(name, 0.1) for name in ("a", "b")]
    rows = measurements({s.name: s for _, s in pairs}, {s.name: s for s, _ in pairs}, None,
                        config(f"evaluation.primary={primary}").evaluation)  # fmt: skip
    assert all(row["difference"]["before"]["p_adjusted"] >= row["difference"]["before"]["p"] for row in rows)
    assert [row["primary"] is None for row in rows] == [False, False]


def test_a_rate_is_corrected_for_the_errors_of_its_scorer() -> None:
    """(0.3 + 0.9 - 1) / (0.8 + 0.9 - 1) = 2/7, and 0.05 by a scorer with 10% false alarms is 0."""
    found = rogan_gladen((0.3, 300), (0.8, 200), (0.9, 200), 0.95)
    assert found.value == pytest.approx(2 / 7)
    assert found.low < 2 / 7 < found.high
    assert rogan_gladen((0.05, 300), (0.8, 200), (0.9, 200), 0.95).value == 0
    with pytest.raises(ValueError, match="no better than chance"):
        rogan_gladen((0.3, 300), (0.4, 200), (0.6, 200), 0.95)


def test_a_corrected_rate_covers_the_true_one() -> None:
    generator, hits = np.random.default_rng(3), 0
    for _ in range(400):
        seen, found, left = (
            generator.binomial(n, p) / n for n, p in ((300, 0.1 * 0.9 + 0.9 * 0.2), (100, 0.9), (100, 0.8))
        )
        interval = rogan_gladen((seen, 300), (found, 100), (left, 100), 0.95)
        hits += interval.low <= 0.1 <= interval.high
    assert 0.92 <= hits / 400 <= 0.98
