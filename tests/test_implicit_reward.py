"""DPO's implicit reward on held-out pairs: 0 at the reference, and beta times the difference of both log-ratios."""

import json
from types import SimpleNamespace

import pytest
import torch
from command import config
from tiny import tiny_model, tiny_tokenizer

from alignlab.chat import encode
from alignlab.evaluation.measures import pairs
from alignlab.evaluation.metrics import score_records
from alignlab.evaluation.protocol import Context, FinishedStage
from alignlab.evaluation.scores import measurements
from alignlab.evaluation.subjects import LanguageModel
from alignlab.models.references import Source

ROWS = [
    {"prompt": f"how do i {verb} {thing}", "chosen": f"{verb} {other}", "rejected": other}
    for verb in ("bake", "mix", "stop")
    for thing in ("bread", "flour", "water", "now")
    for other in ("no water", "yes flour and bread")
]


@pytest.fixture
def stage(tmp_path):
    """Return a finished DPO stage whose policy and reference have the weights of two seeds."""

    def build(policy, reference):
        for seed in (policy, reference):
            tiny_model(seed).save_pretrained(tmp_path / str(seed) / "model")
            tiny_tokenizer().save_pretrained(tmp_path / str(seed) / "model")
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        data = ("dataset=file", f"dataset.path={file}")
        made = config("model=scratch", "method=dpo", "hardware.device=cpu", *data)
        inputs = {"policy": Source("sft", tmp_path / str(reference) / "model", "")}
        finished = FinishedStage(made.method, "policy", tmp_path / str(policy), tmp_path, inputs)
        return Context(made, LanguageModel(finished.folder / "model", made.hardware), None, finished)

    return build


@pytest.fixture
def held_out(monkeypatch):
    rows = [{**row, "id": str(n), "kind": "", "prompt": [{"role": "user", "content": row["prompt"]}]}
            for n, row in enumerate(ROWS)]  # fmt: skip
    split = SimpleNamespace(to_list=lambda: rows)
    monkeypatch.setattr("alignlab.evaluation.protocol.view", lambda *_: split)
    return rows


def measure(context):
    records = list(pairs.score(context.ask(pairs.items(context)), context))
    return measurements(score_records(pairs.METRICS, records), None, None, context.config.evaluation)


def by_name(rows):
    return {row["name"]: row for row in rows}


def test_a_policy_that_is_its_reference_prefers_nothing(stage, held_out):
    rows = by_name(measure(stage(0, 0)))
    assert rows["pairs/accuracy"]["value"] == 0.5
    assert rows["pairs/margin"]["value"] == 0
    assert rows["pairs/accuracy"]["n"] == len(ROWS)


def test_the_margin_is_that_of_the_whole_forward_pass(stage, held_out):
    models = [tiny_model(1), tiny_model(0)]

    def log_prob(model, row, side):
        prompt, completion = encode(tiny_tokenizer(), row["prompt"], row[side])
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *completion]])).logits[0].log_softmax(-1)
        return sum(float(logits[len(prompt) - 1 + k, token]) for k, token in enumerate(completion))

    finished = stage(1, 0)
    ratios = [
        {side: log_prob(models[0], row, side) - log_prob(models[1], row, side) for side in ("chosen", "rejected")}
        for row in held_out
    ]
    margins = [finished.stage.method.beta * (ratio["chosen"] - ratio["rejected"]) for ratio in ratios]
    rows = by_name(measure(finished))
    assert rows["pairs/margin"]["value"] == pytest.approx(sum(margins) / len(margins), abs=1e-5)
    assert rows["pairs/accuracy"]["value"] == pytest.approx(sum(margin > 0 for margin in margins) / len(margins))
    low, high = rows["pairs/accuracy"]["low"], rows["pairs/accuracy"]["high"]
    assert low < rows["pairs/accuracy"]["value"] < high


def test_policies_that_learn_from_other_rows_have_none(stage):
    finished = stage(1, 0)
    sft = config(
        "model=scratch", "method=sft", "dataset=hh_rlhf", f"dataset.train={__file__}", f"dataset.test={__file__}"
    )
    assert list(pairs.items(Context(sft, finished.subject, None, finished.stage._replace(method=sft.method)))) == []
