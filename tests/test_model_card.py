"""The card of a model: its stages, settings, measurements and limits, from a stage's folder."""

import json
from types import SimpleNamespace

from command import config

from alignlab.evaluation.metrics import Scores, rate
from alignlab.evaluation.scores import measurements
from alignlab.evaluation.statistics import mean_columns
from alignlab.pipeline.model_card import card


def scores(values):
    ids = tuple(map(str, range(len(values))))
    return {"harm": Scores(rate("harm", "lower"), "harm", mean_columns(values), ids, ids)}


def test_a_card_has_the_stages_the_settings_the_measurements_and_the_limits(tmp_path):
    settings = config("method=sft", "method.hub_model_id=owner/name", "model=pocket_small", "dataset=pocket_small")
    facts = {
        "inputs": {},
        "stage": "sft",
        "fingerprint": "f1",
        "data": "data-1",
        "seed": 3,
        "alignlab": "1",
        "git": None,
        "config": {"method": {"name": "sft"}},
    }
    (tmp_path / "provenance.json").write_text(json.dumps(facts))
    stage = SimpleNamespace(name="sft", settings=settings.method, source=SimpleNamespace(name="base"), folder=tmp_path)
    rows = measurements(scores([0] * 90 + [1] * 10), scores([0] * 80 + [1] * 20), None, settings.evaluation)
    text = card(SimpleNamespace(config=settings), stage, {"measurements": rows})
    assert text.startswith("---\nlibrary_name: transformers\ntags: [alignlab, sft]\n---\n# owner/name\n")
    assert "| sft | `data-1` | 3 | `f1` |" in text
    assert "learning_rate: " in text
    assert "| harm | 0.1 | 0.05523 to 0.1744 | -0.1 (" in text  # Wilson's interval of 10 in 100
    assert "not how much another training seed would" in text
    assert "is not excluded" not in text  # it has fallen by 10 points
    worse = measurements(scores([1] * 100), scores([0] * 100), None, settings.evaluation)
    assert "is not excluded for harm." in card(SimpleNamespace(config=settings), stage, {"measurements": worse})
    assert "Nothing was measured." in card(SimpleNamespace(config=settings), stage, {"measurements": []})
