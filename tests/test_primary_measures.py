"""Names in `evaluation.primary` that no measure has: refused before training, or named in the report."""

import json
import pkgutil

import pytest
from command import config

import alignlab.evaluation.measures as measures
from alignlab.config import extensions
from alignlab.config.evaluation import MeasureSettings
from alignlab.errors import Mistake
from alignlab.pipeline.run_folder import read_result
from alignlab.reports.primary_measures import check_primary, is_built_in, unmeasured
from alignlab.reports.run_results import Stage

OWN = """from alignlab.evaluation.metrics import rate
METRICS = (rate("facts/right", "higher"),)
def score(replies, context):
    return ()
"""


CONFIG = config("measure=[gold]")


def primary(*names, **changed):
    evaluation = CONFIG.evaluation.model_copy(update={"primary": names})
    return CONFIG.model_copy(update={"evaluation": evaluation, **changed})


@pytest.mark.parametrize(
    ("name", "meant"), [("gold/harmful_complaince", "gold/harmful_compliance"), ("toxicity/rates", "toxicity/rate")]
)
def test_a_misspelt_name_is_refused_with_the_one_that_was_meant(name, meant):
    with pytest.raises(Mistake, match=rf"^evaluation\.primary: no measure is called {name}; did you mean '{meant}'"):
        check_primary(primary("gold/helpful", name))


def test_names_of_built_in_measures_kinds_and_measures_that_know_theirs_later_are_accepted():
    check_primary(CONFIG)
    check_primary(primary("gold/score/harmful", "toxicity/rate/uncontaminated", "refusal/harmful_answered_by_judge"))
    check_primary(primary("lm_eval/arc_easy/acc", "durability/answered_after_10"))


def test_every_metric_that_a_built_in_measure_declares_is_a_known_name():
    modules = [extensions.load("measures", one.name) for one in pkgutil.iter_modules(measures.__path__)]
    declared = [metric for module in modules for metric in (() if callable(module.METRICS) else module.METRICS)]
    assert len(declared) > 40
    assert [
        one.name for one in declared if not is_built_in(f"{one.name}/x" if one.by_kind == "only" else one.name)
    ] == []


def test_the_names_of_own_measures_are_read_from_their_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "measures").mkdir()
    (tmp_path / "measures" / "own_facts.py").write_text(OWN)
    own = {"measure": {"own_facts": MeasureSettings()}}
    check_primary(primary("facts/right", **own))
    with pytest.raises(Mistake, match="no measure is called facts/wrong"):
        check_primary(primary("facts/wrong", **own))


def test_a_report_says_which_primary_measure_was_not_measured(tmp_path):
    row = {"name": "gold/helpful", "value": 1.0}
    result = {"stage": "sft", "seed": 0, "measurements": [row], "seconds": 1, "model": "", "report": ""}
    (tmp_path / "result.json").write_text(json.dumps(result))
    stages = [Stage("sft", "ran", read_result(tmp_path))]
    (tmp_path / "config.yaml").write_text(
        "evaluation: {primary: [gold/helpful, gold/honest, refusal/harmful_anwsered]}\n"
    )
    assert unmeasured(tmp_path, stages) == [
        "evaluation.primary names refusal/harmful_anwsered, which was not measured "
        "(did you mean 'refusal/harmful_answered'?)"
    ]
    (tmp_path / "config.yaml").write_text("evaluation: {primary: [gold/helpful]}\n")
    assert unmeasured(tmp_path, stages) == []
