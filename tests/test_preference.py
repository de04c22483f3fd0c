"""Preference: win rates in both orders and at equal length, and RewardBench's accuracy with ties."""

import json

import numpy as np
import pytest
from command import config
from suites import context, items, replied, values

from alignlab.evaluation.length_control import controlled_wins
from alignlab.evaluation.measures import reward_bench, win_rate
from alignlab.evaluation.metrics import score_records
from alignlab.evaluation.protocol import Context
from alignlab.evaluation.replies import Item, Reply, prompt_hash
from alignlab.evaluation.scores import interval
from alignlab.judges.protocol import Labelled, Reading
from alignlab.models.sampling import Completion

PROMPT = [{"role": "user", "content": "how"}]


class Longest:
    """Prefers the longer answer, or the first one shown of two with a `?`."""

    def label(self, items, done):
        for item in items:
            ranks = [2, 1] if len(item.answers[1]) > len(item.answers[0]) else [1, 2]
            if any("?" in answer for answer in item.answers):
                ranks = [1, 2]
            yield Labelled(item.id, [Reading("judge", [0, 1], {"a": ranks, "b": ranks}, [])])


def test_win_rate_by_hand_and_each_verdict_is_asked_once(tmp_path, monkeypatch):
    from alignlab import judges

    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    loads = []
    monkeypatch.setattr(judges, "load", lambda *_: loads.append(1) or Longest())
    monkeypatch.setattr(win_rate, "references", lambda context: {prompt_hash(PROMPT): ["four"]})
    chosen = config("measure=[win_rate]", "judge=annotators", "model=pocket_small", "dataset=pocket_small")
    own = Context(chosen, None, settings=chosen.measure["win_rate"])
    texts = ("longer", "no", "four", "what?")  # a win, a loss, the same answer, and one that the order decides
    replies = [Reply(Item(str(place), PROMPT), (Completion(text, True, ()),)) for place, text in enumerate(texts)]
    for _ in range(2):
        records = list(win_rate.score(replies, own))
    assert len(loads) == 1
    assert [record.values["win_rate/wins"] for record in records] == [1, 0, 0.5, 0.5]
    found = {name: interval(one, 0.95).value for name, one in score_records(win_rate.METRICS, records).items()}
    assert (found["win_rate/ties"], found["win_rate/order_decides"]) == (0.5, 0.25)
    assert found["win_rate/length_controlled"] < 0.6


def test_verdicts_of_one_reward_are_not_those_of_another():
    chosen = [
        config("measure=[win_rate]", "judge=reward", "reward=function", f"reward.function=math:{name}", "model=scratch")
        for name in ("floor", "ceil")
    ]
    hashes = {win_rate.judge_hash(Context(one, None, settings=one.measure["win_rate"]), {}) for one in chosen}
    assert len(hashes) == 2


def test_a_judge_that_counts_letters_is_controlled_away_and_one_that_does_not_stays():
    stream = np.random.default_rng(0)
    ours, theirs = stream.normal(120, 30, 400), stream.normal(100, 30, 400)
    by_length = (ours > theirs).astype(float)
    assert by_length.mean() > 0.6
    assert controlled_wins(by_length, ours, theirs).mean() == pytest.approx(0.5, abs=0.07)
    better = (stream.random(400) < 0.7).astype(float)
    assert controlled_wins(better, ours, theirs).mean() == pytest.approx(0.7, abs=0.06)
    same = controlled_wins([1, 0.5, 0, 1], [5, 5, 5, 5], [5, 5, 5, 5])
    assert same.mean() == pytest.approx(0.625, abs=0.01)  # no difference of length: the plain win rate


def test_the_spread_of_controlled_wins_is_that_of_the_regression():
    """Their standard error equals the standard deviation over data sets that are drawn again."""
    stream = np.random.default_rng(1)
    draws = []
    for _ in range(200):
        ours, theirs = stream.normal(110, 30, 200), stream.normal(100, 30, 200)
        won = stream.random(200) < 1 / (1 + np.exp(-0.4 - 1.5 * np.tanh((ours - theirs) / 42)))
        draws.append(controlled_wins(won.astype(float), ours, theirs))
    predicted = np.mean([values.std() / len(values) ** 0.5 for values in draws])
    assert np.std([values.mean() for values in draws]) == pytest.approx(predicted, rel=0.15)


def test_rewardbench_by_hand(tmp_path):
    rows = [
        {"prompt": "a", "chosen": ["good"], "rejected": ["x", "y", "z"], "subset": "Focus"},
        {"prompt": "b", "chosen": "good", "rejected": "bad", "subset": "chat"},
        {"prompt": "c", "chosen": ["1", "2"], "rejected": ["3", "4"], "subset": "Ties"},
        {"prompt": "d", "chosen": ["1", "2"], "rejected": ["3"], "subset": "Ties"},
    ]
    (tmp_path / "rb.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = f"measure.reward_bench.path={tmp_path}/rb.jsonl"
    asked = [reward_bench.comparison(row, "here") for row in rows]
    scores = [[2.0, 2.0, 1.0, 0.0], [0.0, 1.0], [3.0, 2.5, 1.0, 0.0], [3.0, 1.0, 0.5]]
    measured = values("reward_bench", asked, scores, path)
    assert measured["reward_bench/accuracy/Focus"] == 0.5  # shared with one wrong completion
    assert measured["reward_bench/accuracy/chat"] == 0
    assert measured["reward_bench/ties_accuracy"] == 1
    assert measured["reward_bench/ties_margin"] == 0.5  # 1.5 > 0.5, and 0.5 < 2
    assert (
        len(
            list(
                reward_bench.score(
                    [replied(*one) for one in zip(asked, scores, strict=True)], context("reward_bench", path)
                )
            )
        )
        == 4
    )
    assert items("reward_bench", path) == []  # no reward model
