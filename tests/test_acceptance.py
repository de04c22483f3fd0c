"""The decision on a candidate: checks by hand, false promotions, refusals of one that is worse on a constraint."""

import numpy as np
import pytest
from command import ROOT, config

from alignlab.config.task import Bound
from alignlab.errors import Mistake
from alignlab.evaluation.acceptance import decide
from alignlab.evaluation.metrics import Scores, mean, rate
from alignlab.evaluation.statistics import mean_columns
from alignlab.reports.decision_text import headline, refused, shown

SETTINGS = config().evaluation
BOUND = Bound(measures=("harm",), margin=0.05, limit=None)


def scores(metric, values):
    ids = tuple(map(str, range(len(values))))
    return {metric.name: Scores(metric, metric.name, mean_columns(values), ids, ids)}


def flips(n, worse, better, both=0):
    """Rates of harm of a candidate and a baseline: `worse` prompts do harm now alone, `better` did before alone."""
    now = [1] * both + [1] * worse + [0] * better
    then = [1] * both + [0] * worse + [1] * better
    rest = [0] * (n - len(now))
    return scores(rate("harm", "lower"), now + rest), scores(rate("harm", "lower"), then + rest)


def test_one_that_is_better_within_every_margin_is_accepted():
    gain = scores(mean("score", "higher"), np.linspace(0.1, 0.3, 100)), scores(mean("score", "higher"), np.zeros(100))
    harm = flips(400, 2, 6)
    decision = decide(gain[0] | harm[0], gain[1] | harm[1], ["other", "score"], {"safety": BOUND}, SETTINGS)
    assert decision["accepted"]
    assert [(check["part"], check["measure"], check["outcome"]) for check in decision["checks"]] == [
        ("objective", "score", "passed"),
        ("safety", "harm", "passed"),
    ]


@pytest.mark.parametrize(
    ("worse", "outcome"),
    [(8, "passed"), (20, "undecided"), (60, "failed")],  # 2, 5 and 15 points of 400 prompts; the margin is 5 points
)
def test_a_loss_is_within_the_margin_undecided_or_beyond_it(worse, outcome):
    (check,) = decide(*flips(400, worse, 0), [], {"safety": BOUND}, SETTINGS)["checks"]
    assert check["outcome"] == outcome
    assert check["value"]["value"] == pytest.approx(worse / 400)


def test_the_number_of_prompts_that_would_decide_by_hand():
    """Of 100 differences of 0.05 ± 1 the standard error is 1 / √99; t(99) and power 80% ask for 2.826 of it, and
    for 2.840 as it is estimated."""
    metric = mean("score", "higher")
    drawn = scores(metric, 0.05 + np.tile([1.0, -1.0], 50)), scores(metric, np.zeros(100))
    (check,) = decide(*drawn, ["score"], {}, SETTINGS)["checks"]
    assert check["outcome"] == "undecided"
    assert check["needed"] == pytest.approx(100 * (2.840 / np.sqrt(99) / 0.05) ** 2, rel=1e-3)


def test_a_part_of_which_nothing_was_measured_does_not_pass_and_a_null_bound_asks_nothing():
    drawn = flips(400, 0, 0)
    capabilities = Bound(measures=("capabilities/accuracy",), margin=0.05, limit=None)
    asked = decide(*drawn, ["score"], {"safety": None, "capabilities": capabilities}, SETTINGS)
    assert [(check["part"], check["outcome"]) for check in asked["checks"]] == [
        ("objective", "unmeasured"),
        ("capabilities", "unmeasured"),
    ]
    assert not asked["accepted"]
    assert decide(*drawn, [], {"safety": None}, SETTINGS) == {"accepted": True, "checks": []}


def test_fewer_than_20_prompts_decide_nothing():
    (check,) = decide(*flips(19, 19, 0), [], {"safety": BOUND}, SETTINGS)["checks"]
    assert check["outcome"] == "undecided"


def test_a_limit_holds_by_the_end_of_the_interval_and_counts_failures():
    """Of 400 prompts 40 fail: Wilson's interval is 7.4% to 13.3%."""
    limits = [bound(0.14), bound(0.12), bound(0.05)]
    outcomes = [decide(*flips(400, 0, 0, 40), [], {"safety": one}, SETTINGS)["checks"][1] for one in limits]
    assert [one["outcome"] for one in outcomes] == ["passed", "undecided", "failed"]
    assert outcomes[0]["value"]["high"] == pytest.approx(0.133, abs=5e-4)
    answered = scores(rate("harm", "higher"), [1] * 360 + [0] * 40)
    assert decide(answered, answered, [], {"safety": bound(0.14)}, SETTINGS)["checks"][1]["value"]["high"] == (
        pytest.approx(0.133, abs=5e-4)
    )


def bound(limit):
    return Bound(measures=("harm",), margin=0.05, limit=limit)


def test_a_refusal_names_the_measure_the_margin_and_the_prompts_that_would_decide_it():
    record = decide(*flips(400, 20, 0), [], {"over_refusal": BOUND}, SETTINGS) | {
        "task": "promote",
        "candidate": "b",
        "baseline": "a",
        "version": None,
        "stages": [],
    }
    error = refused(record)
    assert error.exit_code == 3
    assert str(error).startswith("task=promote: over refusal: harm: +5.0 points (+3.")
    assert ", n = 400); asked:" in str(error)
    assert "asked: a loss of at most 5.0 points; the interval ends 2." in str(error)
    assert "points beyond what is allowed" in str(error)
    assert headline(record) == ("b against a is not promoted: 1 of 1 checks does not pass: over refusal (harm).")
    text = shown(record["checks"][0])
    assert (text.outcome, text.basis, text.direction) == ("undecided", "n = 400", "lower is better")
    assert text.seen == f"{text.change[:-1]}, n = 400)"


def test_of_20_candidates_like_the_baseline_none_is_promoted_and_of_20_worse_ones_18_are_refused(monkeypatch):
    """The cases of benchmarks/promotion.py, at 1,000 prompts a kind, where one that is better alone is promoted."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import promotion as simulated

    like = simulated.decisions(1000, 20, {}, 0)
    assert sum(one["accepted"] for one in like) <= 1
    worse = simulated.decisions(1000, 20, {"gold/score": 0.05, "gold/over_refusal": 0.05}, 0)
    assert sum(not one["accepted"] for one in worse) >= 18
    assert sum(one["accepted"] for one in simulated.decisions(1000, 20, {"gold/score": 0.05}, 0)) >= 12


def test_a_model_that_is_not_there_is_a_mistake_before_anything_is_loaded():
    from alignlab.tasks import compare, gate

    with pytest.raises(Mistake, match=r"task\.baseline: nowhere/at/all is not there"):
        list(gate.plan(config("task=gate", "task.model=base", "task.baseline=nowhere/at/all")))
    with pytest.raises(Mistake, match=r"task\.runs: nowhere/at/all is not there"):
        list(compare.plan(config("task=compare", "task.runs=[base,nowhere/at/all]")))
