"""Ensembles and mixtures, worked out by hand."""

import json
from math import sqrt

import numpy as np
import pytest
from command import config
from tiny import ask

from alignlab.config.hardware import Hardware
from alignlab.config.reward import EnsembleReward, FunctionReward, MixtureReward, Part
from alignlab.errors import Failure, Mistake
from alignlab.rewards import load_reward
from alignlab.rewards.running_stats import RunningStats

CPU = Hardware(strategy="single", device="cpu", dtype="float32", micro_batch_size=None, threads=1)
PROMPTS = [ask("why")] * 3
TEXTS = ["a b", "a", "a b c d"]
ENDED = [True, True, False]

GIVEN = {"one": [1.0, 2.0, 3.0], "two": [3.0, 2.0, 7.0]}


def one(prompts, completions, finished):
    return GIVEN["one"][: len(completions)]


def two(prompts, completions, finished):
    return GIVEN["two"][: len(completions)]


def broken(prompts, completions, finished):
    return [float("nan")] * len(completions)


def function(name):
    return FunctionReward(kind="function", function=f"{__name__}:{name}")


def ensemble(combine, spread_coef=0.0):
    members = {"first": function("one"), "second": function("two")}
    return EnsembleReward(kind="ensemble", members=members, combine=combine, spread_coef=spread_coef)


def mixture(parts, **changed):
    own = {"normalize": False, "clip": None, "missing_eos_penalty": 0.0, "length_penalty": 0.0}
    return load_reward(MixtureReward(kind="mixture", parts=parts, **{**own, **changed}), {}, CPU)


def part(reward, weight=1.0, normalize=False):
    return Part(weight=weight, normalize=normalize, reward=reward)


@pytest.mark.parametrize(
    ("settings", "scores"),
    [
        (ensemble("mean"), [2.0, 2.0, 5.0]),
        (ensemble("minimum"), [1.0, 2.0, 3.0]),
        (ensemble("mean_less_spread", 0.5), [1.5, 2.0, 4.0]),  # the deviations of (1, 3), (2, 2), (3, 7) are 1, 0, 2
    ],
)
def test_an_ensemble_combines_what_its_members_say(settings, scores):
    scored = load_reward(settings, {}, CPU).score(PROMPTS, TEXTS, ENDED)
    assert scored.total == scores
    assert scored.parts == {"first": GIVEN["one"], "second": GIVEN["two"], "spread": [1.0, 0.0, 2.0]}
    assert scored.terms == {}


def test_a_mixture_is_a_weighted_sum():
    reward = mixture({"a": part(function("one"), 2.0), "b": part(function("two"), -1.0)})
    scored = reward.score(PROMPTS, TEXTS, ENDED)
    assert scored.total == [-1.0, 2.0, -1.0]
    assert scored.terms == {"a": [2.0, 4.0, 6.0], "b": [-3.0, -2.0, -7.0]}
    assert scored.parts == {"a": GIVEN["one"], "b": GIVEN["two"]}


def test_penalties_come_after_clipping():
    reward = mixture({"a": part(function("two"))}, clip=2.5, missing_eos_penalty=10.0, length_penalty=0.5)
    assert reward.score(PROMPTS, TEXTS, ENDED).total == [2.5 - 1.0, 2.0 - 0.5, 2.5 - 2.0 - 10.0]
    low = mixture({"a": part(function("two"), -1.0)}, clip=2.5)
    assert low.score(PROMPTS, TEXTS, ENDED).total == [-2.5, -2.0, -2.5]


def test_parts_are_normalised_each_by_itself():
    reward = mixture({"a": part(function("one"), 2.0, normalize=True), "b": part(function("two"))})
    deviation = sqrt(2 / 3)  # of 1, 2, 3
    assert reward.score(PROMPTS, TEXTS, ENDED).total == pytest.approx([3 - 2 / deviation, 2.0, 7 + 2 / deviation])


def test_the_sum_is_normalised_by_all_that_was_seen():
    reward = mixture({"a": part(function("one"))}, normalize=True)
    assert reward.score(PROMPTS[:1], TEXTS[:1], [True]).total == [0.0]  # one value is its own mean
    second = reward.score(PROMPTS, TEXTS, ENDED).total  # 1 and 1, 2, 3: mean 7/4, variance 11/16
    assert second == pytest.approx([(value - 1.75) / sqrt(11 / 16) for value in GIVEN["one"]])


def test_a_mixture_goes_on_exactly_where_it_stopped():
    parts = {"total": part(function("one"), normalize=True), "b": part(function("two"), normalize=True)}
    whole, cut = (mixture(parts, normalize=True) for _ in range(2))
    for count in (1, 3, 2):
        whole.score(PROMPTS[:count], TEXTS[:count], ENDED[:count])
        cut.score(PROMPTS[:count], TEXTS[:count], ENDED[:count])
    resumed = mixture(parts, normalize=True)
    resumed.load_state_dict(json.loads(json.dumps(cut.state_dict())))
    assert resumed.score(PROMPTS, TEXTS, ENDED) == whole.score(PROMPTS, TEXTS, ENDED)
    assert resumed.state_dict() == whole.state_dict()


def test_running_moments_are_those_of_all_values_at_once():
    values = np.random.default_rng(0).normal(1e6, 1.0, 1000)
    running = RunningStats()
    for start in range(0, 1000, 7):
        running.update(values[start : start + 7].tolist())
    running.update([])
    assert running.count == 1000
    assert running.mean == pytest.approx(values.mean(), abs=1e-8)
    assert running.deviation == pytest.approx(values.std(), abs=1e-8)


def test_a_part_that_fails_is_named():
    reward = mixture({"good": part(function("one")), "bad": part(function("broken"))})
    with pytest.raises(Failure, match=r"^reward bad: gave nan, which is no finite number, on the text 'a b'"):
        reward.score(PROMPTS, TEXTS, ENDED)


def test_an_ensemble_may_stand_in_a_mixture():
    reward = mixture({"several": part(ensemble("mean"), 0.5)})
    scored = reward.score(PROMPTS, TEXTS, ENDED)
    assert scored.total == scored.terms["several"] == [1.0, 1.0, 2.5]
    assert scored.parts["several"] == [2.0, 2.0, 5.0]
    assert scored.parts["several/spread"] == [1.0, 0.0, 2.0]


def test_the_terms_of_a_mixture_add_up_to_its_total():
    """By hand: 2 * one - two is -1, 2, -1, clipped at 1.5; 0.5 a word; 10 for the end that is missing."""
    parts = {"a": part(function("one"), 2.0), "b": part(function("two"), -1.0)}
    scored = mixture(parts, clip=1.5, missing_eos_penalty=10.0, length_penalty=0.5).score(PROMPTS, TEXTS, ENDED)
    assert scored.terms == {
        "a": [2.0, 4.0, 6.0],
        "b": [-3.0, -2.0, -7.0],
        "clip": [0.0, -0.5, 0.0],
        "length_penalty": [-1.0, -0.5, -2.0],
        "missing_eos_penalty": [0.0, 0.0, -10.0],
    }
    assert scored.total == [-2.0, 1.0, -13.0]
    assert [sum(row) for row in zip(*scored.terms.values(), strict=True)] == scored.total


def test_the_terms_of_a_normalised_mixture_add_up_to_its_total():
    """By hand: two is 3, 2, 7, its mean 4 and its deviation sqrt(14 / 3)."""
    scored = mixture({"a": part(function("two"))}, normalize=True).score(PROMPTS, TEXTS, ENDED)
    deviation = sqrt(14 / 3)
    assert scored.terms["a"] == pytest.approx([3 / deviation, 2 / deviation, 7 / deviation])
    assert scored.terms["normalize"] == pytest.approx([-4 / deviation] * 3)
    assert [sum(row) for row in zip(*scored.terms.values(), strict=True)] == pytest.approx(scored.total)


def test_scoring_leaves_running_statistics_in_a_reward_and_nothing_else():
    def state(reward):
        """Return all attributes at any depth, less the running statistics."""
        own = vars(reward) if hasattr(reward, "__dict__") else {}
        inner = {name: state(part) for name, part in own.get("parts", {}).items()}
        rest = {name: value for name, value in own.items() if name not in {"parts", "stats", "sum_stats", "reward"}}
        return rest, inner, state(own["reward"]) if "reward" in own else None

    several = {"a": part(ensemble("mean"), normalize=True), "b": part(function("two"))}
    reward = mixture(several, normalize=True, clip=1.0)
    before, stats = state(reward), reward.state_dict()
    assert {*stats} == {"total", "part a"}
    reward.score(PROMPTS, TEXTS, ENDED)
    assert reward.score(PROMPTS[:1], TEXTS[:1], ENDED[:1]).parts["b"] == [3.0]
    assert state(reward) == before
    assert reward.state_dict() != stats
    plain = mixture({"a": part(function("one"))})
    assert plain.score(PROMPTS, TEXTS, ENDED) == plain.score(PROMPTS, TEXTS, ENDED)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["reward=mixture", "+reward@reward.parts.clip.reward=model", "reward.parts.clip.weight=1"], "parts.clip: is"),
        (["reward=classifier", "reward.path=auto", "reward.label=x"], "reward.path: auto is a reward model"),
    ],
)
def test_a_name_that_would_hide_a_term_is_refused(overrides, message):
    more = ["reward.parts.clip.normalize=false"] if "reward=mixture" in overrides else []
    with pytest.raises(Mistake, match=message):
        config(*overrides, *more)


def test_a_part_or_member_named_like_a_metric_of_every_rollout_is_refused():
    """`reward/held_out` would otherwise be the part's mean, which a gate takes for the held-out reward model's."""
    part = ["reward=mixture", "reward.parts.held_out.weight=1", "reward.parts.held_out.normalize=false"]
    part += ["reward.parts.held_out.reward.kind=model", "reward.parts.held_out.reward.path=auto"]
    with pytest.raises(Mistake, match=r"reward\.parts\.held_out: is the name of a metric of every rollout"):
        config(*part)
