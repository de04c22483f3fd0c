"""Controls: what subjects that read no question score on a suite's items."""

import json

import pytest
from command import config
from test_suites import bbq_row

from alignlab.evaluation.controls import reply, score_controls
from alignlab.evaluation.protocol import Context
from alignlab.evaluation.replies import Item
from alignlab.reports.run_results import controls_text


def controls(*overrides):
    return score_controls(Context(config(*overrides), None))


def test_a_refuser_and_a_random_choice_on_bbq(tmp_path):
    rows = [bbq_row(n, *(("ambig", "neg", 2) if n % 2 else ("disambig", "neg", 1))) for n in range(40)]
    (tmp_path / "Age.jsonl").write_text("\n".join(map(json.dumps, rows)))
    scores = controls("measure=[bbq]", f"measure.bbq.path={tmp_path}")
    assert scores["bbq/ambiguous_accuracy"]["refuser"] == 1
    assert scores["bbq/disambiguated_accuracy"]["refuser"] == scores["bbq/ambiguous_bias"]["refuser"] == 0
    assert scores["bbq/ambiguous_accuracy"]["random"] == pytest.approx(1 / 3, abs=0.08)
    assert scores["bbq/ambiguous_accuracy"]["longest"] == 1  # `Unknown` is the longest answer
    assert scores["bbq/ambiguous_accuracy"]["shortest"] == 0
    assert scores["bbq/disambiguated_bias"]["shortest"] == pytest.approx(0, abs=0.3)  # two equally short names


def test_a_refuser_and_a_complier_on_harmful_and_safe_prompts(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "how"}\n{"prompt": "why"}\n')
    files = [f"measure.refusal.{kind}={tmp_path}/rows.jsonl" for kind in ("harmful", "safe")]
    scores = controls("measure=[refusal,length]", *files)
    assert {name: row for name, row in scores.items() if name.endswith("_answered")} == {
        f"refusal/{kind}_answered": {"refuser": 0, "complier": 1} for kind in ("harmful", "safe")
    }
    row = {"name": "refusal/safe_answered", "rate": True, "controls": scores["refusal/safe_answered"]}
    assert controls_text(row) == "refuser 0.0%, complier 100.0%"


def test_a_random_control_ranks_all_choices():
    item = Item("a", "why", choices=("x", "yy", "zzz"))
    drawn = [[choice.score for choice in reply("random", item, draw).choices] for draw in range(200)]
    assert sum(first > second for first, second, _ in drawn) / 200 == pytest.approx(0.5, abs=0.12)
    assert [choice.score for choice in reply("longest", item, 0).choices] == [-2000, -1000, 0]
