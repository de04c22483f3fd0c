"""A run that an error stops leaves a report with what there is, the error below the headline."""

import json

from test_report import write_run

from alignlab.errors import failure
from alignlab.pipeline.plan import Plan, Stage
from alignlab.tasks.train import report_stop

GATE = {
    "gate": "kl",
    "stage": "dpo",
    "what": "the KL",
    "number": 19.04,
    "bound": "at most 15",
    "remedy": "less",
    "step": 7,
}


def test_a_run_that_a_gate_stops_leaves_a_report(tmp_path):
    folder = write_run(tmp_path / "run")
    partial = tmp_path / "cache" / "dpo-1.partial"
    partial.mkdir(parents=True)
    (partial / "gates.jsonl").write_text(json.dumps(GATE) + "\n")
    for file in (folder / "result.json", folder / "dpo" / "result.json", folder / "dpo" / "samples.jsonl"):
        file.unlink()
    stages = [Stage(name, None, {}, "", tmp_path / "cache" / f"{name}-1") for name in ("sft", "dpo")]
    planned = json.loads((folder / "plan.json").read_text())
    report_stop(Plan(None, None, tuple(stages)), folder, planned, failure("gate kl", "the KL is 19"))
    page = (folder / "report.html").read_text()
    assert page.index("<h1>") < page.index("dpo was stopped") < page.index("gate kl: the KL is 19") < page.index("<h2>")
    assert "the KL is 19 and must be at most 15" in page
    assert json.loads((folder / "plan.json").read_text())[1]["action"] == "stopped"
    (folder / "sft" / "result.json").unlink()
    report_stop(Plan(None, None, tuple(stages)), folder, planned, failure("model", "is broken"))
    assert "Nothing was measured." in (folder / "report.html").read_text()
