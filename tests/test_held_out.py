"""What the plan says of the held-out rows, and that a stage without any ends well."""

import json

import pytest
from command import alignlab, config

from alignlab.evaluation.decisions import FEWEST_CLUSTERS
from alignlab.evaluation.held_out import describe
from alignlab.evaluation.protocol import measurements_with_rows
from alignlab.reports.run_results import change

PAIRS = [{"prompt": f"Is {n} a number?", "chosen": f"Yes, {n} is.", "rejected": "No idea."} for n in range(600)]


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Return the lines of the plan and the measurements of a file of some rows."""
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))

    def lines(rows, *more):
        file = tmp_path / f"{len(rows)}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = config("dataset=file", f"dataset.path={file}", "model=scratch", "method=sft", *more)
        return list(describe(settings)), [one.name for one in measurements_with_rows(settings, "policy")]

    return lines


def test_the_plan_says_what_cannot_be_measured(plan):
    nothing = "nothing is measured on completions: no test rows are held out; give dataset.test_path, or more rows"
    assert plan(PAIRS[:4]) == ([nothing], [])
    few = "measured on 1 held-out prompt: too few to call a change better or worse"
    lines, names = plan(PAIRS[:12])
    assert lines == [few]
    assert {"perplexity", "length"} <= {*names}
    assert plan(PAIRS)[0] == []
    lines, names = plan([{"prompt": row["prompt"]} for row in PAIRS[:599]])
    assert lines == ["not measured, since no rows for it are held out: perplexity"]
    assert "perplexity" not in names
    assert plan(PAIRS[:4], "evaluation=none")[0] == []


def test_few_rows_give_no_verdict():
    row = {"name": "length/mean", "value": 2.0, "better": "higher", "rate": False, "n": FEWEST_CLUSTERS - 1}
    row["difference"] = {"before": {"value": 1.0, "low": 1.0, "high": 1.0}}
    assert change(row, "before").verdict == "unclear"
    assert change(row | {"n": FEWEST_CLUSTERS}, "before").verdict == "better"


@pytest.mark.parametrize(("steps", "rates"), [(1, [1e-3]), (2, [0.0, 1e-3])])
def test_a_single_step_of_few_rows_learns(tmp_path, steps, rates):
    from tiny import tiny_model
    from transformers import Trainer, TrainingArguments

    from alignlab.training.trainer import with_bases

    settings = TrainingArguments(str(tmp_path), learning_rate=1e-3, warmup_steps=0.05, use_cpu=True, report_to="none")
    trainer = with_bases(Trainer, {})(model=tiny_model(), args=settings)
    trainer.create_optimizer_and_scheduler(steps)
    share = trainer.lr_scheduler.lr_lambdas[0]
    assert [1e-3 * share(step) for step in range(steps)] == rates


@pytest.mark.runs
@pytest.mark.parametrize("method", ["sft", "rm"])
def test_a_stage_without_held_out_rows_ends_well(tmp_path, method):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS[:3]))
    tiny = ("model=scratch", "model.hidden_size=16", "dataset=file", "dataset.path=rows.jsonl", "method.batch_size=2")
    process = alignlab(f"method={method}", *tiny, folder=tmp_path)
    assert process.returncode == 0, process.stderr[-2000:]
    assert f"{method} is done; nothing was measured." in process.stdout
