"""The controller of a constraint's weight, and the reward that it constrains, worked out by hand."""

import json
from math import sqrt

import pytest
from command import config
from test_rewards_mixture import CPU, ENDED, GIVEN, PROMPTS, TEXTS, ensemble, function

from alignlab.config.reward import ConstrainedReward, Cost, ModelReward
from alignlab.errors import Failure, Mistake
from alignlab.rewards import Checked, RewardModel, load_reward, reward_models
from alignlab.rewards.constrained import Constrained, ends_of
from alignlab.rewards.lagrangian import Gains, Multiplier, calibrated
from alignlab.rewards.protocol import Context

COST = {"bound": 0.5, "threshold": 2.5, "floor": 0.1, "ceiling": 0.9}  # of two: 3, 2, 7 are read as 1, 0, 1


def constrained(objective=None, **changed):
    costs = {"harm": Cost(**COST, reward=function("two"))}
    gains = {"proportional": 2.0, "integral": 1.0, "derivative": 0.0, "initial_weight": 0.5, "max_weight": 5.0}
    settings = gains | {"objective": objective or function("one"), "costs": costs} | changed
    return load_reward(ConstrainedReward(kind="constrained", **settings), {}, CPU)


def test_a_weight_has_three_terms():
    gains = Gains(proportional=10.0, integral=1.0, derivative=4.0, largest=5.0)
    first = Multiplier(1.0, 1.0).updated(0.3, 0.1, gains)
    assert first == pytest.approx((1.2 + 2.0, 1.2, 0.3))  # no rise is known yet
    second = first.updated(0.4, 0.1, gains)
    assert second == pytest.approx((1.5 + 3.0 + 0.4, 1.5, 0.4))
    assert second.updated(0.05, 0.1, gains) == pytest.approx((1.45 - 0.5, 1.45, 0.05))  # a fall does not count


def test_a_weight_stays_in_its_range_and_winds_nothing_up():
    gains = Gains(proportional=0.0, integral=1.0, derivative=0.0, largest=2.0)
    state = Multiplier(0.0, 0.0)
    for _ in range(100):
        state = state.updated(1.0, 0.1, gains)
    assert state.weight == 2.0
    assert state.updated(0.0, 0.5, gains).weight == 1.5  # at once, and not after a hundred rollouts
    for _ in range(100):
        state = state.updated(0.0, 0.5, gains)
    assert state.weight == 0.0


def plant(gains, rollouts=300):
    """Return the costs of a policy that moves by 0.02 a rollout for each unit that the weight is away from 2."""
    cost, state, costs = 0.4, Multiplier(1.0, 1.0), []
    for _ in range(rollouts):
        state = state.updated(cost, 0.14, gains)
        cost = max(0.0, min(1.0, cost - 0.02 * (state.weight - 2)))
        costs.append(cost)
    return costs


def test_integral_control_swings_around_the_bound_and_the_proportional_term_damps_it():
    integral = plant(Gains(0.0, 1.0, 0.0, 10.0))[-60:]
    assert max(integral) - min(integral) > 0.1
    both = plant(Gains(10.0, 1.0, 0.0, 10.0))[-60:]
    assert both == pytest.approx([0.14] * 60, abs=1e-3)


def test_a_noisy_reader_is_calibrated():
    """Of 200 completions 40 are harmful; a reader that finds 90% of them and 10% of the others reads 52."""
    assert calibrated(52 / 200, 0.1, 0.9) == pytest.approx(0.2)


def test_the_total_is_the_standardised_objective_less_the_weighted_cost():
    """By hand: read 2/3, calibrated 17/24, excess 5/24; weight 0.5 + 5/24 + 10/24 = 1.125."""
    scored = constrained().score(PROMPTS, TEXTS, ENDED)
    weight, scale = 1.125, sqrt(1 + 1.125**2)
    objective = [(value - 2) / sqrt(2 / 3) for value in GIVEN["one"]]
    cost = [(value - 4) / sqrt(14 / 3) for value in GIVEN["two"]]
    assert scored.terms["objective"] == pytest.approx([value / scale for value in objective])
    assert scored.terms["harm"] == pytest.approx([-weight * value / scale for value in cost])
    assert scored.total == pytest.approx([sum(row) for row in zip(*scored.terms.values(), strict=True)])
    assert (scored.parts["objective"], scored.parts["harm"]) == (GIVEN["one"], GIVEN["two"])
    assert scored.parts["harm/read"] == [1.0, 0.0, 1.0]
    assert scored.parts["harm/cost"] == pytest.approx([1.125, -0.125, 1.125])
    assert scored.parts["harm/weight"] == pytest.approx([weight] * 3)


def test_without_weight_it_is_the_objective_and_a_score_may_be_the_cost():
    costs = {"harm": Cost(bound=4.0, threshold=None, floor=0.0, ceiling=1.0, reward=function("two"))}
    scored = constrained(ensemble("mean"), costs=costs, initial_weight=0.0).score(PROMPTS, TEXTS, ENDED)
    assert scored.parts["harm/read"] == scored.parts["harm/cost"] == GIVEN["two"]  # their mean is the bound
    assert scored.total == pytest.approx([(value - 3) / sqrt(2) for value in (2, 2, 5)])
    assert scored.parts["objective/spread"] == [1.0, 0.0, 2.0]


def test_a_gate_checks_the_objective_on_pairs_and_no_cost():
    settings = constrained().reward.settings
    models = {name: Checked(RewardModel(None, None, 1, name)) for name in ("objective", "harm")}
    reward = Checked(Constrained("constrained", settings, models, {"harm": (0.0, 1.0)}))
    assert [model.name for model in reward_models(reward)] == ["objective"]


@pytest.mark.parametrize(
    ("own", "ends"),
    [
        ({}, (0.15, 0.8)),
        ({"floor": 0.1}, (0.1, 0.8)),
        ({"threshold": 0.5}, (0.0, 1.0)),  # 0 and 1 are not what was calibrated
    ],
)
def test_a_cost_model_brings_its_floor_and_its_ceiling(own, ends, tmp_path):
    (tmp_path / "calibration.json").write_text('{"floor": 0.15, "ceiling": 0.8}')
    model = ModelReward(kind="model", path=str(tmp_path))
    cost = Cost(**{"bound": 0.1, "threshold": None, "floor": None, "ceiling": None, "reward": model} | own)
    assert ends_of(cost, Context({}, CPU)) == ends
    assert ends_of(cost.model_copy(update={"reward": function("one")}), Context({}, CPU))[1] == 1.0
    with pytest.raises(Failure, match=r"its ceiling \(0.8\) is not above its floor \(0.9\)|ceiling \(1\).*floor \(1\)"):
        ends_of(cost.model_copy(update={"floor": 0.9 if ends[1] < 1 else 1.0}), Context({}, CPU))


def test_a_constrained_reward_resumes_exactly():
    whole, cut = constrained(), constrained()
    for count in (1, 3, 2):
        whole.score(PROMPTS[:count], TEXTS[:count], ENDED[:count])
        cut.score(PROMPTS[:count], TEXTS[:count], ENDED[:count])
    resumed = constrained()
    resumed.load_state_dict(json.loads(json.dumps(cut.state_dict())))
    assert resumed.score(PROMPTS, TEXTS, ENDED) == whole.score(PROMPTS, TEXTS, ENDED)
    assert resumed.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["reward.costs.harm.ceiling=0", "reward.costs.harm.floor=0"],
            r"reward\.costs\.harm\.ceiling: 0 is not above floor \(0\)",
        ),
        (["reward.initial_weight=11"], r"reward\.initial_weight: 11 is above max_weight \(10\)"),
    ],
)
def test_impossible_settings_are_refused(overrides, message):
    cost = ["reward=constrained", "reward.costs.harm.reward.path=pocket", "reward.costs.harm.reward.label=insult"]
    with pytest.raises(Mistake, match=message):
        config(*cost, *overrides)
