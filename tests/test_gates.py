"""Gates: each planted fault triggers its own gate, and a healthy run triggers none."""

import json
import logging

import numpy as np
import pytest
import yaml
from command import ROOT, config

from alignlab.config.compose import compose
from alignlab.config.evaluation import Evaluation
from alignlab.config.gates import Gates
from alignlab.errors import Failure, Mistake
from alignlab.evaluation.statistics import Interval
from alignlab.pipeline.prepare_inputs import prepare_data
from alignlab.pipeline.train_stage import job
from alignlab.rewards import Checked, RewardModel, Scored
from alignlab.training import gate_monitor, gates
from alignlab.training.gates import Curve, Quality, Stages

GIVEN = yaml.safe_load((ROOT / "conf/method/_gates.yaml").read_text())
BOUNDS = Gates(**GIVEN)
CONFIG = config("model=pocket_small", "dataset=pocket_small")
EVALUATION = Evaluation(**CONFIG.evaluation.model_dump() | {"confidence": 0.95})
SOURCES = {"policy": "sft", "reward_model": "rm"}
STAGES = Stages("ppo", "sft")
GOOD = Quality(Interval(0.8, 0.75, 0.85), Interval(0.2, 0.1, 0.3), Interval(0.05, 0.02, 0.08))


def names(triggered):
    return [(gate.gate, gate.stage) for gate in triggered]


def before(finished=0.95, quality=GOOD, ratio=1.0, kl=0.0):
    return names(gates.check_before(finished, {"rm": quality}, ratio, kl, BOUNDS, STAGES))


def test_a_healthy_start_triggers_none():
    assert before() == []
    assert names(gates.check_before(0.95, {}, 1.0, 0.0, BOUNDS, STAGES)) == []


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ({"finished": 0.0}, ("ends", "sft")),
        ({"quality": GOOD._replace(accuracy=Interval(0.52, 0.47, 0.57))}, ("chance", "rm")),
        ({"quality": GOOD._replace(over_length=Interval(0.01, -0.03, 0.05))}, ("length_only", "rm")),
        ({"quality": GOOD._replace(calibration_error=Interval(0.3, 0.25, 0.35))}, ("calibration", "rm")),
        ({"ratio": 1.3, "kl": 2.0}, ("ratio", "ppo")),  # dropout: policy and reference differ by it too
        ({"ratio": 0.7}, ("ratio", "ppo")),
        ({"kl": 12.0}, ("reference", "ppo")),  # the reference has lost the weights of sft
    ],
)
def test_a_fault_before_training_triggers_its_own_gate_and_no_other(fault, named):
    assert before(**fault) == [named]


def test_a_triggered_gate_is_one_sentence():
    said = str(gates.check_first_kl(12.0, 1e-3)._replace(stage="ppo").fault())
    assert said == (
        "gate reference, stage ppo: the KL to the reference at step 0 is 12, and has to be at most 0.001; "
        "merge the policy's adapter into its weights before a new one is put on, so that the reference has it too"
    )


def pairs(count, longer=0.7):
    """Pairs whose chosen answer is the longer one in a share of them."""
    rows = []
    for number in range(count):
        sizes = (8, 4) if number % 10 < longer * 10 else (4, 8)
        rows.append({"chosen": "x" * sizes[0], "rejected": "x" * sizes[1]})
    return rows


def quality_and_names(chosen, rejected, rows):
    quality = gate_monitor.quality_of_scores(np.array(chosen, float), np.array(rejected, float), rows, rows, EVALUATION)
    return quality, names(gates.check_before(1.0, {"rm": quality}, 1.0, 0.0, BOUNDS, STAGES))


def test_a_reward_model_that_only_counts_length_triggers():
    rows = pairs(200)
    scores = ([len(row[side]) / 8 for row in rows] for side in ("chosen", "rejected"))
    quality, found = quality_and_names(*scores, rows)
    assert quality.accuracy.value == 0.7
    assert quality.accuracy.low > 0.5  # it beats chance
    assert quality.over_length == Interval(0.0, *quality.over_length[1:])
    assert found == [("length_only", "rm")]


def test_a_reward_model_of_shuffled_labels_triggers():
    margins = np.random.default_rng(0).normal(0, 1, 200)
    _, found = quality_and_names(margins, np.zeros(200), pairs(200, longer=0.5))
    assert found[0] == ("chance", "rm")


def test_parts_and_those_that_only_look_on_are_observed(tmp_path):
    made = gate_monitor.GateMonitor(BOUNDS, tmp_path, CONFIG, "ppo", SOURCES)
    made.held_out = type("Judge", (), {"score": lambda *_: Scored([2.0, 4.0])})()
    asked = [[{"role": "user", "content": "how do you bake the bread ?"}]] * 2
    scored = Scored(
        [0.5, 1.5], {"a": [0.5, 1.5]}, {"a": [1.0, 3.0], "several/spread": [0.0, 1.0], "others/spread": [0.0, 0.5]}
    )
    seen = made.observe(scored, asked, ["", "nonsense"], [True, False])
    held_out = {"reward/held_out": 3.0, "reward/held_out_error": pytest.approx(1 / 2**0.5)}
    parts = {"reward/a": 2.0, "reward/several_spread": 0.5, "reward/others_spread": 0.25, "reward/spread": 0.5}
    parts["reward/terms/a"] = 1.0
    assert seen == {**parts, **held_out, "gold/score": 0.25, "gold/error": 0.0}


def test_reward_models_are_tried_on_pairs_wherever_they_stand_in_a_reward(monkeypatch, capsys):
    held_out = 50

    def view(dataset, name, split):
        if dataset == "no pairs":
            raise Mistake([])
        rows = [
            {"prompt": [], "chosen": "right" * (n % 2 + 1), "rejected": "wrong long"[: 5 + n % 3]}
            for n in range(held_out)
        ]
        return type("Rows", (), {"to_list": lambda _: rows})()

    class Knows(RewardModel):
        def score(self, prompts, completions, finished=None):
            return Scored([float(text.startswith("right")) for text in completions])

    monkeypatch.setattr(gate_monitor, "view", view)
    first, second = (Checked(Knows(None, None, 1, name)) for name in ("model", "other"))
    both = Checked(type("Mixture", (), {"name": "x", "parts": {"a": first, "b": second}})())
    found = gate_monitor.qualities(both, CONFIG, SOURCES)
    assert {stage: quality.accuracy.value for stage, quality in found.items()} == {"rm": 1.0, "rm (other)": 1.0}
    assert gate_monitor.qualities(first, CONFIG.model_copy(update={"dataset": "no pairs"}), SOURCES) == {}
    assert gate_monitor.qualities(Checked(type("Function", (), {"name": "f"})()), CONFIG, SOURCES) == {}
    assert not capsys.readouterr().err
    for held_out in (1, 19):
        assert gate_monitor.qualities(both, CONFIG, SOURCES) == {}
        assert f"not checked: {held_out} of 20 held-out pairs\n" in capsys.readouterr().err
    held_out = 20
    assert len(gate_monitor.qualities(both, CONFIG, SOURCES)) == 2


def test_a_good_reward_model_triggers_none():
    margins = np.where(np.arange(200) % 10 < 9, 2.0, -2.0)  # 90% right, 88% sure
    quality, found = quality_and_names(margins, np.zeros(200), pairs(200, longer=0.5))
    assert quality.accuracy.value == 0.9
    assert found == []


def test_a_reward_model_that_is_surer_than_right_triggers():
    margins = np.where(np.arange(200) % 10 < 7, 9.0, -9.0)
    assert quality_and_names(margins, np.zeros(200), pairs(200, longer=0.5))[1] == [("calibration", "rm")]


HEALTHY = {
    "reward/mean": lambda t: t,
    "policy/kl": lambda t: 6 * t,
    "policy/entropy": lambda t: 2.0 - t,
    "policy/clip_fraction": lambda t: 0.1,
    "value/explained_variance": lambda t: 0.6 * t,
    "completion/length": lambda t: 10 + 2 * t,
    "completion/finished": lambda t: 0.95,
    "completion/distinct": lambda t: 1.0,
    "completion/variety": lambda t: 0.5 - 0.1 * t,
    "completion/strange": lambda t: 0.02 + 0.03 * t,
    "reward/spread": lambda t: 0.3 + 0.1 * t,
    "reward/held_out": lambda t: 0.8 * t,
    **dict.fromkeys(("reward/error", "reward/held_out_error", "gold/error"), lambda t: 0.05),
}


def watched(folder, changed=None, bounds=BOUNDS, rollouts=40):
    """Curves over a run, with faults planted in some of them."""
    random = np.random.default_rng(0)
    made = gate_monitor.GateMonitor(bounds, folder, CONFIG, "ppo", SOURCES)
    for number in range(1, rollouts + 1):
        t = number / rollouts
        curves = {**HEALTHY, **(changed or {})}
        made.check_during(number, {name: value(t) + 0.01 * random.normal() for name, value in curves.items()})
    return made


@pytest.mark.parametrize(
    ("name", "curve", "gate"),
    [
        ("policy/kl", lambda t: 60 * t, "kl"),
        ("policy/entropy", lambda t: 2.0 * (1 - t), "entropy"),
        ("policy/clip_fraction", lambda t: 0.6, "clip_fraction"),
        ("value/explained_variance", lambda t: -0.5, "explained_variance"),
        ("completion/length", lambda t: 10 + 10 * t, "length"),
        ("completion/length", lambda t: 10 - 8 * t, "length"),
        ("completion/finished", lambda t: 0.95 - 0.6 * t, "truncated"),
        ("completion/distinct", lambda t: 1 - 0.5 * t, "repetition"),
        ("completion/variety", lambda t: 0.5 - 0.2 * t, "variety"),
        ("completion/strange", lambda t: 0.02 + 0.2 * t, "strange"),
        ("reward/spread", lambda t: 0.3 + 0.9 * t, "ensemble"),
        ("reward/held_out", lambda t: 4 * t * (1 - t), "held_out"),
        ("gold/score", lambda t: 4 * t * (1 - t), "gold"),
    ],
)
def test_a_fault_during_training_triggers_its_own_gate_and_no_other(tmp_path, name, curve, gate):
    made = watched(tmp_path, {name: curve})
    assert [each["gate"] for each in made.triggered] == [gate]
    said = [json.loads(line) for line in (tmp_path / "gates.jsonl").read_text().splitlines()]
    assert said == made.triggered  # each gate is reported once, at the rollout at which it first triggered
    assert 3 <= said[0]["step"] <= 40


def test_a_healthy_run_triggers_none(tmp_path):
    assert watched(tmp_path).triggered == []
    assert not (tmp_path / "gates.jsonl").exists()
    assert watched(tmp_path, rollouts=2).triggered == []


def test_a_held_out_reward_that_wavers_is_not_taken_for_one_that_falls():
    rising = Curve(list(range(40)), [0.1] * 40)
    for seed in range(50):
        flat = np.random.default_rng(seed).normal(0, 1, 40).tolist()
        assert gates.check_held_out("gold", Curve(flat, [1.0] * 40), rising, BOUNDS) is None
    up = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]

    def lost(*then, error=0.5, window=1):
        return gates.lost_share(Curve([*up, *then], [error] * (len(up) + len(then))), window)

    assert lost(4.0, 3.0, 2.0, 1.0) == 0.8  # four is more than four times sqrt(2) * 0.5
    assert lost(4.0, 3.0, 2.0, 1.0, 0.0) == 1.0
    assert lost(4.0, 3.0, 2.5) == 0.0  # which may be chance
    assert lost(4.0, 3.0, 2.0, 1.0, 0.0, -1.0, window=2) == 1.0  # smoothed: 0.5, …, 4.5, …, -0.5
    assert lost(4.0, 3.0, 2.0, 1.0, window=3) == pytest.approx(0.7)  # 1, …, 4.33, …, 2: of 3.33 lost 2.33


def began(folder, mode, **measured):
    bounds = BOUNDS.model_copy(update={"before": mode})
    gate_monitor.GateMonitor(bounds, folder, CONFIG, "ppo", SOURCES).check_before(
        Checked(type("Function", (), {"name": "f"})()),
        {"completion/finished": 1.0, "policy/kl_exact": 0.0, **{f: v for f, v in measured.items() if f != "ratio"}},
        measured.get("ratio", 1.0),
    )


def test_stop_ends_the_run_warn_says_it_and_off_is_silent(tmp_path, caplog):
    faults = {"completion/finished": 0.0, "policy/kl_exact": 5.0}
    with pytest.raises(Failure) as found:
        began(tmp_path, "stop", **faults)
    lines = str(found.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["gate ends, stage sft", "gate reference, stage ppo"]
    assert all("or continue anyway with method.gates.before=warn" in line for line in lines)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="alignlab"):
        began(tmp_path, "warn", ratio=1.5)
    assert [record.message.split(":")[0] for record in caplog.records] == ["gate ratio, stage ppo"]
    began(tmp_path / "off", "off", **faults)
    off = BOUNDS.model_copy(update={"during": "off"})
    assert watched(tmp_path / "off", {"policy/kl": lambda t: 99.0}, off).triggered == []
    assert not (tmp_path / "off").exists()
    stop = BOUNDS.model_copy(update={"during": "stop"})
    with pytest.raises(Failure, match=r"gate kl, stage ppo: the KL to the reference is 99, and has to be at most 15"):
        watched(tmp_path, {"policy/kl": lambda t: 99.0}, stop)
    assert [gate["gate"] for gate in watched(tmp_path, {"gold/score": lambda t: 4 * t * (1 - t)}, stop).triggered] == [
        "gold"
    ]


def test_a_watch_goes_on_where_it_stopped(tmp_path):
    first = watched(tmp_path, {"policy/kl": lambda t: 60 * t}, rollouts=30)
    second = gate_monitor.GateMonitor(BOUNDS, tmp_path, CONFIG, "ppo", SOURCES)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for made in (first, second):
        made.check_during(31, {"policy/kl": 70.0, "policy/entropy": 0.0})
    assert first.triggered == second.triggered
    assert first.curves == second.curves


def test_what_the_monitors_read_of_a_rollout():
    import torch

    from alignlab.models.sampling import Completion
    from alignlab.training.ppo import rollout_metrics

    said = [Completion(text, True, ()) for text in ("a b a b", "a b", "c")]
    assert rollout_metrics.distinct(said) == pytest.approx((2 / 3 + 1) / 2)  # a b, b a, a b; a b; none
    assert rollout_metrics.variety(said) == 2 / 4  # a b, b a among four
    assert rollout_metrics.variety([said[1]] * 10) == 0.1  # each answer is as varied as can be, and they are one
    assert rollout_metrics.strange(torch.tensor([[-1.0, -9.3], [-9.2, -1.0]])) == 0.5  # log 1e-4 is -9.21


def test_gates_name_the_stages_of_the_run(tmp_path, monkeypatch):
    """A run of Constitutional AI with PPO has no stage sft, rm or ppo."""
    from alignlab.pipeline import plan

    bound = compose("method=cai", "method.then=ppo", "model=pocket_small", "dataset=pocket_small")
    prepare_data(bound)
    stage = plan.make(bound).stages[-1]
    sources = job(plan.make(bound), stage, tmp_path).sources
    assert sources == {"policy": "cai_sft", "reward_model": "cai_rm"}
    bad = Quality(Interval(0.5, 0.4, 0.6), Interval(0.2, 0.1, 0.3), Interval(0.5, 0.4, 0.6))
    stage_of = gate_monitor.stage_of
    monkeypatch.setattr(
        gate_monitor, "qualities", lambda reward, config, sources: {stage_of(RewardModel(None, None, 1), sources): bad}
    )
    monitor = gate_monitor.GateMonitor(bound.method.gates, tmp_path, bound, stage.name, sources)
    with pytest.raises(Failure):
        monitor.check_before(None, {"completion/finished": 0.0, "policy/kl_exact": 0.0}, 2.0)
    assert [(gate["gate"], gate["stage"]) for gate in monitor.triggered] == [
        ("ends", "cai_sft"), ("chance", "cai_rm"), ("calibration", "cai_rm"), ("ratio", "cai_ppo"),
    ]  # fmt: skip


def test_gates_name_the_models_of_a_reward_with_parts():
    sources = {"policy": "sft", "reward_model": "rm", "reward.parts.a.reward": "owner/a", "reward.members.b": "folder"}
    names = [gate_monitor.stage_of(RewardModel(None, None, 1, name), sources) for name in ("model", "a", "b", "c")]
    assert names == ["rm", "owner/a (a)", "folder (b)", "rm (c)"]
    assert gate_monitor.stage_of(RewardModel(None, None, 1), {"reward": "owner/a"}) == "owner/a"
