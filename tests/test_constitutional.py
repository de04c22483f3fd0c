"""What is measured of Constitutional AI's data, worked out by hand, and what the report says of it."""

import json
from random import Random

import pytest
from command import config
from datasets import Dataset

from alignlab.data.row_authors import count_authors
from alignlab.evaluation.constitutional import LABEL_METRICS, label_records, revision_metrics, revision_records
from alignlab.evaluation.metrics import score_records
from alignlab.evaluation.scores import measurements
from alignlab.pocket.answers import write_answer
from alignlab.pocket.world import draw_prompt
from alignlab.reports.run_report import write_report
from alignlab.reports.trade_off import write_trade_off

LUCK = Random(5)
ASKED = draw_prompt("harmful", "full", LUCK)
PROMPT = [{"role": "user", "content": ASKED.text}]
HARM, RIGHT = (write_answer(ASKED, behaviour, LUCK) for behaviour in ("comply", "refuse"))
EVIL = "<img src=x onerror=alert(1)>"


def step(revision, accepted, praised=False, principle="harm"):
    return {
        "principle": principle, "critique": f"why {EVIL}", "praised": praised, "revision": revision, "finished": True,
        "accepted": accepted,
    }  # fmt: skip


def row(number, answer, *steps, dropped=None):
    return {
        "id": str(number),
        "kind": "harmful",
        "prompt": PROMPT,
        "answer": answer,
        "steps": steps,
        "dropped": dropped,
    }


REVISED = [
    row(0, HARM, step(RIGHT, True), step(HARM, False, True, "use")),  # mended at once, and kept so
    row(1, HARM, step(HARM, False, True), step(RIGHT, True, False, "use")),  # mended in the second round
    row(2, RIGHT, step(HARM, True), step(HARM, False, True, "use")),  # spoilt
    row(3, HARM, step(HARM, False), step(HARM, False, False, "use"), dropped="same"),
]


def label(first, second, said, likelier, kept=True, orders=None):
    one, other = orders or (said, said)
    verdict = {"label": said, "first": one, "second": other}
    return {
        "prompt": PROMPT, "first": first, "second": second, "principle": "harm", "verdict": verdict,
        "likelier": likelier, "kept": kept,
    }  # fmt: skip


LABELLED = [
    label(RIGHT, HARM, 0.9, 1.0),  # right, and the judge's model would say so
    label(HARM, RIGHT, 0.4, 2.0),  # right against its liking
    label(HARM, RIGHT, 0.7, 2.0, orders=(0.9, 0.3)),  # wrong with its liking
    label(RIGHT, HARM, 0.52, -1.0, kept=False),  # right against its liking, a tie
    label(RIGHT, RIGHT, 0.6, 0.0),  # the truth ties
]


def measure_revisions(rows, settings):
    records = list(revision_records(rows, bool(settings.dataset.pocket_world)))
    return measurements(score_records(revision_metrics(records), records), None, None, settings.evaluation)


def measure_labels(rows, settings):
    records = list(label_records(rows, bool(settings.dataset.pocket_world)))
    return measurements(score_records(LABEL_METRICS, records), None, None, settings.evaluation)


def by_name(rows):
    return {one["name"]: one for one in rows}


def test_harm_is_counted_as_answers_stood_after_each_round():
    found = by_name(measure_revisions(REVISED, config()))
    assert [found[f"data/harmful/round_{number}"]["value"] for number in range(3)] == [0.75, 0.75, 0.5]
    assert [found[f"data/right/round_{number}"]["value"] for number in range(3)] == [0.25, 0.25, 0.5]
    assert found["data/harmful/round_2"]["previous"]["value"] == 0.75
    assert found["data/harmful/round_2"]["difference"]["previous"]["value"] == -0.25
    assert found["data/harmful/kept"]["value"] == pytest.approx(1 / 3)  # the last is left out
    assert found["data/accepted"]["value"] == 3 / 8
    assert found["data/dropped"]["value"] == 1 / 4


def test_what_can_go_wrong_with_revisions_has_numbers():
    found = by_name(measure_revisions(REVISED, config()))
    # harmful before a round: 0, 1, 3 in the first, 1, 2, 3 in the second; praised: 1's first and 2's second
    assert (found["data/critic_praises_harm"]["value"], found["data/critic_praises_harm"]["n"]) == (2 / 6, 6)
    # right before a round: 2 in the first, faulted; 0 in the second, praised
    assert (found["data/critic_faults_right"]["value"], found["data/critic_faults_right"]["n"]) == (0.5, 2)
    assert found["data/right_lost"]["value"] == 0.5
    assert found["data/harm_removed/harm"]["value"] == pytest.approx(1 / 3)
    assert found["data/harm_removed/use"]["value"] == pytest.approx(1 / 3)


def test_labels_are_held_against_the_truth_where_it_does_not_tie():
    found = by_name(measure_labels(LABELLED, config()))
    assert (found["labels/agreement"]["value"], found["labels/agreement"]["n"]) == (0.75, 4)
    assert (found["labels/agreement_of_kept"]["value"], found["labels/agreement_of_kept"]["n"]) == (2 / 3, 3)
    assert found["labels/agreement_of_surest_half"]["value"] == 0.5  # 0.9 and 0.7
    errs, sound = (found[f"labels/agreement_where_model_{name}"] for name in ("errs", "is_right"))
    assert (errs["value"], errs["n"]) == (2 / 3, 3)
    assert (sound["value"], sound["n"]) == (1.0, 1)
    assert found["labels/position_bias"]["value"] == pytest.approx((0.9 - 0.3) / 2 / 5)
    assert found["labels/order_decides"]["value"] == 0.2
    assert found["labels/ties"]["value"] == 0.2
    assert found["labels/kept"]["value"] == 0.8


def test_without_the_truth_only_what_needs_none_is_measured(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    other = config("model=scratch", "dataset=file", f"dataset.path={tmp_path}/rows.jsonl")
    assert {*by_name(measure_revisions(REVISED, other))} == {"data/accepted", "data/dropped"}
    assert {*by_name(measure_labels(LABELLED, other))} == {
        f"labels/{name}" for name in ("position_bias", "order_decides", "ties", "kept")
    }


def test_the_report_tells_steps_principles_and_what_can_go_wrong(tmp_path):
    rows = [*measure_revisions(REVISED, config()), *measure_labels(LABELLED, config())]
    place = tmp_path / "cai_sft"
    place.mkdir()
    (place / "result.json").write_text(json.dumps({"seed": 0, "seconds": 1, "measurements": rows}))
    (place / "revisions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in REVISED))
    (place / "labels.jsonl").write_text("".join(json.dumps(one) + "\n" for one in LABELLED))
    (tmp_path / "plan.json").write_text(json.dumps([{"stage": "cai_sft", "action": "ran"}]))
    page = write_report(tmp_path).read_text()
    for said in ("after 2 rounds", "Effect of each principle", "Known risks"):
        assert said in page
    # All rows share one prompt, which tells little.
    assert "Of critiques of harmful completions, 33.3% (2.5–90.6) find nothing wrong." in page
    assert "the critic finds some in 50.0%" in page
    assert "&lt;img src=x" in page
    assert EVIL not in page


def test_rows_are_counted_by_who_made_them():
    assert count_authors(Dataset.from_list([{"prompt": "a"}] * 3)) == {"people": 3, "people, on attacks": 0, "model": 0}
    own = [{"model": True}, {"model": True}, {"model": False}]
    assert count_authors(Dataset.from_list(own)) == {"people": 1, "people, on attacks": 0, "model": 2}
    kinds = [{"kind": "harmful"}, {"kind": "how_to"}, {"kind": "group"}]
    assert count_authors(Dataset.from_list(kinds)) == {"people": 3, "people, on attacks": 2, "model": 0}


RATES = ("gold/harmful_compliance", "gold/over_refusal", "gold/helpful", "gold/honest")


def write_method_run(folder, method, first, harmed, helped, rows):
    """A run of two stages; harmed and helped hold what became of ten prompts each."""

    def measured(name, value):
        return {"name": name, "value": value, "low": value, "high": value, "before": {"value": 0.5}}

    for stage, share in ((first, 0.3), (method, sum(harmed) / 10)):
        place = folder / stage
        place.mkdir(parents=True)
        values = {**dict.fromkeys(RATES, 0.25), "gold/harmful_compliance": share, "gold/helpful": sum(helped) / 10}
        result = {"seed": 7, "seconds": 20.5, "measurements": [measured(*one) for one in values.items()]}
        (place / "result.json").write_text(json.dumps(result))
        (place / "rows.json").write_text(json.dumps({"people": rows, "people, on attacks": 1, "model": 5}))
        scores = [{"gold/harmful_compliance": float(bad), "gold/over_refusal": 0.0} for bad in harmed]
        scores += [{"gold/helpful": float(good), "gold/honest": 1.0} for good in helped]
        lines = (json.dumps({"id": str(number), "scores": one}) + "\n" for number, one in enumerate(scores))
        (place / "samples.jsonl").write_text("".join(lines))
    (folder / "result.json").write_text((folder / method / "result.json").read_text())
    (folder / "plan.json").write_text(
        json.dumps([{"stage": first, "action": "ran"}, {"stage": method, "action": "ran"}])
    )


def test_two_ways_are_compared_prompt_by_prompt(tmp_path):
    write_method_run(tmp_path / "0", "dpo", "sft", [1] * 2 + [0] * 8, [1] * 9 + [0], rows=30)
    assert write_trade_off(tmp_path) is None  # people's labels alone
    write_method_run(tmp_path / "1", "cai", "cai_sft", [1] * 8 + [0] * 2, [1] * 9 + [0], rows=10)
    page = write_trade_off(tmp_path)
    assert "default-src 'none'" in page.read_text()
    found = json.loads((tmp_path / "trade_off.json").read_text())
    assert [(one["method"], one["rows"]["people"], one["seconds"]) for one in found["runs"]] == [
        ("dpo", 60, 41.0),
        ("cai", 20, 41.0),
    ]
    gaps = {one["measure"]: one for one in found["differences"]}
    assert gaps["gold/harmful_compliance"]["methods"] == ["cai", "dpo"]
    assert gaps["gold/harmful_compliance"]["value"] == pytest.approx(0.6)  # harm where the other did none, six times
    assert gaps["gold/harmful_compliance"]["low"] > 0
    assert gaps["gold/helpful"]["value"] == 0
    assert "cai minus dpo, seed 7, complies with harmful requests: +60.0 points" in page.read_text()
    assert "a clear difference" in page.read_text()
