"""Results without items that are near training rows."""

import json

from command import config

from alignlab.data.contamination import near_training
from alignlab.evaluation.metrics import Record, mean, rate
from alignlab.evaluation.protocol import ChosenMeasurement
from alignlab.evaluation.replies import Item, Reply
from alignlab.evaluation.scores import interval
from alignlab.evaluation.uncontaminated import uncontaminated
from alignlab.reports.measure_names import label

LONG = "one two three four five six seven eight nine ten"
TRAINED = "the quick brown fox jumps over the lazy dog and runs"


def row(text):
    return {"prompt": [{"role": "user", "content": text}], "completions": []}


def test_a_row_is_near_where_half_of_its_word_8_grams_are_trained_on():
    rows = [row(TRAINED), row(f"{TRAINED} away"), row(f"{TRAINED} a b c d e f g h"), row(LONG)]
    assert near_training(rows, [row(TRAINED)]) == [True, True, False, False]  # 4 of 4, 4 of 5, 4 of 12, 0 of 3


def test_values_without_near_items_stand_beside_all_and_no_kind_has_one(tmp_path):
    for name, text in (("train", TRAINED), ("test", LONG)):
        pair = {key: f"\n\nHuman: {text}\n\nAssistant: {key}" for key in ("chosen", "rejected")}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(pair))
    files = [f"dataset.{name}={tmp_path}/{name}.jsonl" for name in ("train", "test")]
    bound = config("model=scratch", "dataset=hh_rlhf", *files)
    items = [Item(str(place), text, "kind", cluster=text) for place, text in enumerate((TRAINED, LONG, "why now"))]
    values = [{"x/right": 1.0, "x/size": 5.0}, {"x/right": 0.0, "x/size": 1.0}, {"x/right": 0.0, "x/size": 3.0}]
    records = [Record(item.id, item.cluster, "kind", own) for item, own in zip(items, values, strict=True)]

    class Module:
        METRICS = (rate("x/right", "higher", by_kind=True), mean("x/size"))

    chosen = ChosenMeasurement("x", "policy", Module, bound.measure["length"], None)
    found = uncontaminated(chosen, [Reply(item) for item in items], records, bound)
    assert {name: interval(scores, 0.95).value for name, scores in found.items()} == {
        "x/right/uncontaminated": 0, "x/size/uncontaminated": 2,
    }  # fmt: skip
    assert found["x/right/uncontaminated"].metric.better == "neither"
    assert uncontaminated(chosen, [Reply(item) for item in items[1:]], records[1:], bound) == {}
    assert label("refusal/safe_answered/uncontaminated").endswith(
        "get an answer, items that are not near training rows"
    )
