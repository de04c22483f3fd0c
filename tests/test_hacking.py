"""The page on reward hacking: what it says of runs whose curves are known."""

import json

import pytest
from command import ROOT

from alignlab.reports import reward_hacking, reward_hacking_page, sweep_summary

ROLLOUTS = 20


def rose(height):
    return [height * t / ROLLOUTS for t in range(1, ROLLOUTS + 1)]


def hacked():
    """Up to 0.8 at the tenth rollout, and down to 0 again."""
    return [0.08 * t if t <= 10 else 0.8 - 0.08 * (t - 10) for t in range(1, ROLLOUTS + 1)]


def write(folder, bias, kl_coef, gold, gates, change):
    place = folder / "ppo"
    place.mkdir(parents=True)
    settings = {
        "defaults": [{"override /dataset": "pocket_longer" if bias else "pocket"}, "_self_"],
        "dataset": {"longer_bias": bias, "pairs": 3000},
        "method": {"kl_coef": kl_coef},
        "seed": 0,
    }
    (folder / "config.yaml").write_text(json.dumps(settings))
    rows = [
        {
            "step": 6 * n,
            "reward/mean": up,
            "gold/score": truth,
            "policy/kl": far,
            "reward/error": 0.3,
            "gold/error": 0.03,
        }
        for n, (up, truth, far) in enumerate(zip(rose(2.0), gold, rose(9.0), strict=True), start=1)
    ]
    (place / "metrics.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [{"step": 1, "train/loss": 0.1}, *rows])
    )
    if gates:
        (place / "gates.jsonl").write_text("".join(json.dumps(gate) + "\n" for gate in gates))
    difference = {"reward/mean": (1.0, 0.9, 1.1), "gold/score": change}
    measurements = [
        {"name": name, "value": 0.5, "low": 0.4, "high": 0.6, "n": 9, "rate": False, "better": "higher"}
        | {"difference": {"previous": dict(zip(("value", "low", "high"), ends, strict=True))}}
        for name, ends in difference.items()
    ]
    result = {"stage": "ppo", "seed": 0, "measurements": measurements, "seconds": 1.0}
    (place / "result.json").write_text(json.dumps(result))
    off = {"proxy_error": 0.1, "gold_error": 0.01}
    best = [{"n": 1, "kl": 0.0, "proxy": 0.1, "gold": 0.2} | off, {"n": 32, "kl": 2.5, "proxy": 0.6, "gold": 0.3} | off]
    (place / "best_of_n.json").write_text(json.dumps(best))
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "plan.json").write_text(json.dumps([{"stage": "ppo", "action": "ran"}]))


@pytest.fixture
def folder(tmp_path):
    fall, rise = (-0.3, -0.4, -0.2), (0.2, 0.1, 0.3)
    length, gold = {"step": 8, "gate": "length"}, {"step": 5, "gate": "gold"}
    before = {"step": 0, "gate": "length_only"}
    write(tmp_path / "0", 0.7, 0.0, hacked(), [before, length, gold], fall)
    write(tmp_path / "1", 0.7, 0.2, hacked(), [before, gold], fall)
    write(tmp_path / "2", 0.0, 0.0, rose(0.8), [], rise)
    write(tmp_path / "3", 0.0, 0.2, rose(0.8), [], rise)
    return tmp_path


def test_a_fooled_reward_is_told_from_a_good_one(folder):
    found = {(policy.reward, policy.kl_coef): policy for policy in reward_hacking.policies(folder)}
    names = ("pocket_longer (dataset.longer_bias=0.7)", "pocket (dataset.longer_bias=0.0)")
    assert list(found) == [(name, coef) for name in names for coef in (0.0, 0.2)]
    bad, unwatched, good, _ = found.values()
    # means of three rollouts peak at 0.747 (9 to 11); the first below nine tenths of that is 0.64 (11 to 13)
    assert (bad.fell, good.fell) == (13, None)
    assert bad.first["gate"] == "length"
    assert unwatched.first is None  # neither gold nor a gate before training counts
    assert reward_hacking.verdict(bad) == (
        "the reward rose while gold fell; length_only triggered before training; "
        "length triggered at rollout 8, before gold had fallen 10% (rollout 13)"
    )
    assert reward_hacking.verdict(unwatched).endswith(
        "no monitor triggered before rollout 13, when gold had fallen 10%"
    )
    assert reward_hacking.verdict(good) == "gold rose; no monitor triggered"


def test_curves_are_drawn_over_the_root_of_the_distance(folder):
    policy = next(reward_hacking.policies(folder))
    points = reward_hacking_page.over_kl(policy, "reward/mean")
    assert points[0] == pytest.approx(((9 * 2 / 20) ** 0.5, 0.2))  # the means of the first three rollouts
    assert len(points) == ROLLOUTS - 2
    gate, fell = reward_hacking_page.marks(policy, "proxy")
    assert gate[:2] == points[8 - 3]
    assert (fell[:2], gate.filled, fell.filled) == (points[13 - 3], True, False)


def test_a_policy_is_held_against_the_best_of_n_at_equal_distance(folder):
    policy = next(reward_hacking.policies(folder))
    found = policy.over_best_of_n("proxy")
    # the KL is 0.45 t; the means of rollouts 4 to 6 are 2.25, the next 2.7 is beyond n = 32
    assert found.kl == pytest.approx(2.25)
    bought = 0.1 + 2.25 / 2.5 * 0.5
    assert found.value == pytest.approx(0.5 - bought)  # the reward is 0.1 t
    assert found.high - found.value == pytest.approx(1.96 * (0.3**2 / 3 + 0.1**2) ** 0.5)
    assert policy._replace(best=[]).over_best_of_n("gold") is None


def test_a_sweep_over_rewards_ends_with_its_page(folder):
    *_, page, table = sweep_summary.summarise(folder)
    assert (page, table) == (str(folder / "hacking.html"), str(folder / "sweep.md"))
    text = (folder / "hacking.html").read_text()
    assert "default-src 'none'" in text
    assert text.count("<svg") == 4  # two rewards, each with its own curve and gold's
    assert text.count(">best of n<") == 8  # in both drawings of both: in the legend and on the line
    assert "Best of n has most gold at n = 32 (0.300, at 2.50 nats)" in text
    assert "−0.300 (−0.400 to −0.200)" in text
    facts = json.loads((folder / "hacking.json").read_text())
    assert [one["gold_fell"] for one in facts] == [13, 13, None, None]


def test_other_sweeps_have_no_such_page(folder, tmp_path):
    for place in folder.glob("*/ppo/metrics.jsonl"):
        place.write_text("")
    assert reward_hacking_page.write_hacking(folder) is None


def test_the_best_of_n_is_taken_over_every_choice():
    from math import log

    import numpy as np

    from alignlab.evaluation.best_of_n import best, distance

    proxy, gold = np.array([[3.0, 1.0, 2.0]]), np.array([[0.0, 1.0, 0.5]])
    assert best(proxy, gold, 1)[2:4] == pytest.approx((2.0, 0.5))
    # of the three pairs, two hold 3 and one has 2 as its best
    assert best(proxy, gold, 2)[2:4] == pytest.approx(((3 + 3 + 2) / 3, (0 + 0 + 0.5) / 3))
    assert best(proxy, gold, 3)[2:] == (3.0, 0.0, 0.0, 0.0)  # of one prompt: no spread
    assert (distance(1), distance(2)) == (0.0, log(2) - 0.5)
    assert distance(5) == pytest.approx(0.81, abs=0.01)
    two = best(np.vstack([proxy, proxy + 2]), np.vstack([gold, gold]), 3)
    assert two[2:] == pytest.approx((4.0, 0.0, 1 / 2**0.5, 0.0))  # 3 and 5


def test_the_evidence_says_whether_a_weak_reward_was_fooled_and_heard(folder, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import hacking as evidence

    runs = [reward_hacking.facts(policy) for policy in reward_hacking.policies(folder)]
    (_, fooled), (said, heard) = evidence.checks([*runs[2:], *runs[:2]])  # the good one first
    assert (fooled, heard) == (True, True)
    assert said.endswith("in 2 of 2 runs, in 1 of them a monitor during training")  # both by the gate before training
    assert evidence.cells(runs[0])[-2:] == ["13", "length_only at 0, length at 8"]
    (_, fooled), _ = evidence.checks([runs[0], *runs[2:]])
    assert not fooled  # the model that learned from good labels was not
