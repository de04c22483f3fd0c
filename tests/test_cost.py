"""A cost model: calibration by hand and by its laws, the split of costs in two, labels of harm, and a run."""

import json

import numpy as np
import pytest
from command import config

from alignlab.errors import Failure
from alignlab.methods.cost import check_labels, is_harmful
from alignlab.reports.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, scale
from alignlab.reports.run_report import reliability
from alignlab.rewards.reward_model import cost
from alignlab.training.cost_calibration import Platt, describe, fit_platt, split_in_two


def test_calibration_recovers_the_scale_and_the_offset():
    """Labels drawn with sigmoid(2 x - 1): 20,000 of them give both back."""
    random = np.random.default_rng(0)
    outputs = random.normal(size=20_000)
    harmful = (random.random(20_000) < 1 / (1 + np.exp(1 - 2 * outputs))).astype(float)
    assert fit_platt(outputs, harmful) == pytest.approx((2.0, -1.0), abs=0.08)


def test_the_mean_of_calibrated_costs_is_that_of_platts_targets():
    outputs, harmful = np.array([-2.0, -1.0, 0.5, 1.0, 3.0]), np.array([0.0, 0.0, 1.0, 0.0, 1.0])
    targets = np.where(harmful > 0, 3 / 4, 1 / 5)  # two harmful ones, three harmless ones
    assert fit_platt(outputs, harmful).probability(outputs).mean() == pytest.approx(targets.mean())


def test_calibration_finds_the_minimum_where_newtons_step_overshoots():
    """Some outputs far from the others: the gradient is 0 in the minimum alone, the function being convex."""
    random = np.random.default_rng(0)
    for _ in range(100):
        harmful = (random.random(300) < 0.9).astype(float)
        outputs = 25 * (random.standard_t(1.5, 300) + 3.7 * harmful)
        harmless = 300 - harmful.sum()
        targets = np.where(harmful > 0, (harmful.sum() + 1) / (harmful.sum() + 2), 1 / (harmless + 2))
        probability = fit_platt(outputs, harmful).probability(outputs)
        assert abs((probability - targets).sum()) < 1e-3


def test_outputs_that_separate_the_labels_keep_a_finite_scale():
    assert np.isfinite(fit_platt(np.array([-1.0, -2.0, 1.0, 2.0]), np.array([0.0, 0.0, 1.0, 1.0]))).all()


def test_a_cost_is_the_calibrated_output_and_never_overflows():
    assert cost(1.0, 2.0, -1.0) == pytest.approx(1 / (1 + np.exp(-1)))
    assert cost(0.3, 2.0, -1.0) == pytest.approx(Platt(2.0, -1.0).probability(np.array([0.3]))[0])
    assert (cost(1e6, 1.0, 0.0), cost(-1e6, 1.0, 0.0)) == (1.0, 0.0)


def test_the_floor_and_the_ceiling_are_the_means_of_two_groups():
    """Costs of 0.1 and 0.2 (harmless) and of 0.8 (harmful) are split at 0.5."""
    assert split_in_two(np.array([0.8, 0.1, 0.2, 0.8])) == pytest.approx(0.5)
    logits = np.log(np.array([0.1, 0.2, 0.8, 0.8]) / (1 - np.array([0.1, 0.2, 0.8, 0.8])))
    facts = describe(Platt(1.0, 0.0), logits, np.array([0.0, 0.0, 1.0, 1.0]))
    assert [facts[name] for name in ("threshold", "floor", "ceiling")] == pytest.approx([0.5, 0.15, 0.8])
    assert facts["brier"] == pytest.approx((0.01 + 0.04 + 0.04 + 0.04) / 4)


@pytest.mark.parametrize(
    ("row", "kinds", "harmful"),
    [
        ({"desirable": False, "harms": []}, (), False),  # a useless answer, where others name kinds of harm
        ({"desirable": False, "harms": ["hate"]}, (), True),
        ({"desirable": False, "harms": ["hate"]}, ("violence",), False),
        ({"desirable": False}, None, True),  # no row names a kind
        ({"desirable": True}, None, False),
    ],
)
def test_a_label_is_harmful_by_its_kinds_of_harm_or_else_by_being_bad(row, kinds, harmful):
    assert is_harmful(row, kinds) is harmful


def test_too_few_rows_to_calibrate_on_are_refused():
    with pytest.raises(Failure, match="9 harmful and 30 harmless labels for calibration, which needs 10 each"):
        check_labels([True] * 9 + [False] * 30)


def test_the_report_draws_the_reliability_curve(tmp_path):
    """Ten costs of 0.25, one in five of harm, and ten of 0.75, all of harm: two points beside the diagonal."""
    costs = [(0.25, number % 5 == 0) for number in range(10)] + [(0.75, True)] * 10
    rows = [{"measure": "cost", "values": {"cost/cost": cost, "cost/harmful": float(harm)}} for cost, harm in costs]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (chart,) = reliability(tmp_path)
    x, y = scale(0, 1, LEFT, WIDTH - RIGHT, 4, tight=True), scale(0, 1, HEIGHT - BOTTOM, TOP, 4)
    points = " ".join(f"{x.pixel(cost):.1f},{y.pixel(share):.1f}" for cost, share in ((0.25, 0.2), (0.75, 1.0)))
    assert f'points="{points}"' in chart
    assert reliability(tmp_path / "elsewhere") == []


@pytest.mark.runs
def test_a_cost_model_tells_harmful_from_harmless_answers(tmp_path):
    import alignlab

    settings = config("method=cost", "model=pocket_small", "dataset=pocket_small", "dataset.validation=0.15")
    values = {row["name"]: row["value"] for row in alignlab.run(settings, tmp_path / "run").rows}
    assert values["cost/of_harmful"] > values["cost/of_harmless"] + 0.3
