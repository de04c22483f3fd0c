"""Ensembles and mixtures, worked out by hand."""

import json
from math import sqrt

import numpy as np
import pytest
from tiny import ask

from alignlab.config.hardware import Hardware
from alignlab.config.reward import EnsembleReward, FunctionReward, MixtureReward, Part
from alignlab.errors import Failure
from alignlab.rewards import load_reward
from alignlab.rewards.running_stats import Running

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
    reward = load_reward(settings, {}, CPU)
    assert reward.score(PROMPTS, TEXTS, ENDED) == scores
    assert reward.terms == {"first": GIVEN["one"], "second": GIVEN["two"], "spread": [1.0, 0.0, 2.0]}


def test_a_mixture_is_a_weighted_sum():
    reward = mixture({"a": part(function("one"), 2.0), "b": part(function("two"), -1.0)})
    assert reward.score(PROMPTS, TEXTS, ENDED) == [-1.0, 2.0, -1.0]
    assert reward.terms == {"a": GIVEN["one"], "b": GIVEN["two"]}


def test_penalties_come_after_clipping():
    reward = mixture({"a": part(function("two"))}, clip=2.5, missing_eos_penalty=10.0, length_penalty=0.5)
    assert reward.score(PROMPTS, TEXTS, ENDED) == [2.5 - 1.0, 2.0 - 0.5, 2.5 - 2.0 - 10.0]
    low = mixture({"a": part(function("two"), -1.0)}, clip=2.5)
    assert low.score(PROMPTS, TEXTS, ENDED) == [-2.5, -2.0, -2.5]


def test_parts_are_normalised_each_by_itself():
    reward = mixture({"a": part(function("one"), 2.0, normalize=True), "b": part(function("two"))})
    deviation = sqrt(2 / 3)  # of 1, 2, 3
    assert reward.score(PROMPTS, TEXTS, ENDED) == pytest.approx([3 - 2 / deviation, 2.0, 7 + 2 / deviation])


def test_the_sum_is_normalised_by_all_that_was_seen():
    reward = mixture({"a": part(function("one"))}, normalize=True)
    assert reward.score(PROMPTS[:1], TEXTS[:1], [True]) == [0.0]  # one value is its own mean
    second = reward.score(PROMPTS, TEXTS, ENDED)  # 1 and 1, 2, 3: mean 7/4, variance 11/16
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
    running = Running()
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
    assert reward.score(PROMPTS, TEXTS, ENDED) == [1.0, 1.0, 2.5]
    assert reward.terms["several/spread"] == [1.0, 0.0, 2.0]
