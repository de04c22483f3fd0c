"""Steps laid out by tokens have the losses and gradients of those laid out by rows, in every method."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from command import config
from datasets import Dataset
from safetensors.torch import load_file
from tiny import tiny_model

from alignlab.methods import dpo, kto, rm, sft
from alignlab.models import prompt_layout
from alignlab.models.from_scratch import base_model
from alignlab.models.packed_log_probs import log_prob_sums, predictions
from alignlab.runtime.stage_run import Run
from alignlab.training import reference_table
from alignlab.training.reference_table import ReferenceTable
from alignlab.training.token_layout import lay_out

METHODS = {"sft": sft, "dpo": dpo, "rm": rm, "kto": kto}
SETTINGS = [
    "model=scratch", "dataset=file", "dataset.validation=0", "dataset.test=0", "method.policy=base",
    "model.vocab_size=300", "model.hidden_size=16", "model.intermediate_size=24", "model.num_hidden_layers=1",
    "model.num_attention_heads=2", "model.num_key_value_heads=2", "hardware.device=cpu", "hardware.threads=1",
    "method.batch_size=8", "method.max_steps=1", "method.logging_steps=1", "method.max_length=120",
    # w - lr * g / (|g| + eps) is w - g where lr = eps is large: the trained weights show the gradient.
    "method.learning_rate=1e6", "method.adam_epsilon=1e6", "method.max_grad_norm=1e9", "method.warmup_steps=0",
    "method.lr_scheduler_type=constant",
]  # fmt: skip


def trained(folder, method, layout, *more):
    """The first loss and the weights after a step along the gradient, by rows of very different length."""
    rows = [
        {
            "prompt": f"What is {n}?" * (1 + 5 * (n % 3 == 0)),
            "chosen": f"It is {n}." * (1 + n % 4),
            "rejected": "No " * n,
        }
        for n in range(1, 9)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = config(f"method={method}", *SETTINGS, f"dataset.path={folder / 'rows.jsonl'}", *more)
    settings = settings.model_copy(
        update={"hardware": settings.hardware.model_copy(update={"layout": layout, "micro_batch_size": 2})}
    )
    logged = []
    track = SimpleNamespace(log=lambda metrics, step: logged.append(metrics))
    run = Run(
        settings, settings.method, {"policy": base_model(settings.model, settings.dataset)}, folder / layout, track
    )
    run.folder.mkdir(exist_ok=True)
    torch.manual_seed(0)  # a new head of a reward model is drawn from it
    METHODS[method].train(run)
    return logged[0], load_file(run.output / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("sft", ()),
        ("sft", ("method.packing=true",)),
        ("rm", ()),
        ("dpo", ("method.nll_weight=0.5", "method.label_smoothing=0.2")),
        ("dpo", ("method.loss_type=ipo", "method.nll_weight=0.5", "model/adapter=lora")),
        ("kto", ("dataset.label_pairs=true", "method.max_steps=2")),  # the KL term of the first step is 0
    ],
    ids=["sft", "packing", "rm", "soft labels", "ipo with LoRA", "kto"],
)
def test_losses_and_gradients_are_those_of_the_layout_by_rows(tmp_path, method, more):
    (ours, gradients), (plain, expected) = (trained(tmp_path, method, layout, *more) for layout in ("tokens", "rows"))
    for name in ("train/loss", "train/grad_norm", "reward/accuracy", "train/num_tokens", "train/mean_token_accuracy"):
        if name in plain and name in ours:
            assert ours[name] == pytest.approx(plain[name], rel=1e-5), name
    for name, weight in expected.items():
        torch.testing.assert_close(gradients[name], weight, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "dpo", "rm"])
def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(method, tmp_path, monkeypatch):
    """DPO's second epoch reads reference values of the first; a checkpoint of step 1 keeps half of them."""
    more = "method.batch_size=4", "method.max_steps=4", "method.save_steps=1", "method.save_total_limit=9"
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    _, whole = trained(tmp_path, method, "tokens", *more)
    shutil.rmtree(tmp_path / "cache" / "reference", ignore_errors=method != "dpo")
    for step in (2, 3, 4):
        shutil.rmtree(tmp_path / "tokens" / "checkpoints" / f"checkpoint-{step}")
    _, resumed = trained(tmp_path, method, "tokens", *more)
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())


@pytest.mark.slow
def test_a_run_that_finds_the_references_values_has_the_weights_of_the_one_that_computed_them(tmp_path, monkeypatch):
    """With LoRA, the policy is its own reference; it has no dropout then, which would draw other masks."""
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    more = "model/adapter=lora", "method.dropout=0.3", "method.learning_rate=1e-2", "method.adam_epsilon=1e-8"
    runs = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        runs.append(trained(tmp_path / name, "dpo", "tokens", *more)[1])
        assert len(list((tmp_path / "cache" / "reference").glob("*/log_probs.pt"))) == 1
    assert all(torch.equal(runs[0][name], weight) for name, weight in runs[1].items())


def test_rows_of_similar_length_share_a_micro_batch():
    """[10, 10] and [2, 2, 2] cost 26 tokens and two micro-batches; one of five rows would cost 50."""
    assert lay_out([2, 10, 2, 10, 2], 100, 1) == [[1, 3], [0, 2, 4]]
    assert lay_out([2, 10, 2, 10, 2], 100, 30) == [[0, 2, 4, 1, 3]]
    assert lay_out([2, 10, 2, 10, 2], 12, 30) == [[3], [1], [0, 2, 4]]


def test_each_completion_is_predicted_from_the_prompts_end_on():
    """Prompt p p, completions a a and b: both begin after place 1, and place 4 (b) is not predicted by place 3."""
    segments = prompt_layout.pack([[1, 2]], [[[3, 4], [5]]], 0).segments
    assert [column.tolist() for column in predictions(segments)] == [[2, 3, 4], [1, 2, 1], [0, 0, 1]]


def test_packed_pairs_have_the_log_probabilities_of_single_rows():
    model = tiny_model()
    pairs = prompt_layout.pack([[6, 7, 8], [9]], [[[10, 11, 2], [12, 2]], [[13, 2], [6, 8, 7, 2]]], 0)
    model.packing_limit = 0
    plain = log_prob_sums(model, pairs)
    prompt_layout.choose_layout(model, log_prob_sums)
    assert model.packing_limit > 0
    torch.testing.assert_close(log_prob_sums(model, pairs), plain, rtol=1e-5, atol=1e-5)
    logits = model(torch.tensor([[9, 6, 8, 7]])).logits[0].log_softmax(-1)
    assert plain[1, 1].item() == pytest.approx(sum(logits[i, t].item() for i, t in enumerate([6, 8, 7, 2])), rel=1e-5)


def test_the_references_values_are_kept_once_all_are_known(tmp_path):
    table = ReferenceTable(2, tmp_path / "table")
    table.put([1], torch.tensor([[1.0, 2.0]]))
    assert table.get([0, 1]) is None
    assert not (tmp_path / "table").exists()
    table.put([0], torch.tensor([[3.0, 4.0]]))
    assert ReferenceTable(2, tmp_path / "table").get([0, 1]).tolist() == [[3.0, 4.0], [1.0, 2.0]]
    assert table.get([]) is None


def test_the_references_values_are_computed_anew_with_another_version_of_a_library(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text("{}")
    settings = config("method=dpo", "hardware.device=cpu")
    run = Run(settings, settings.method, {"policy": tmp_path}, tmp_path, None)
    rows = Dataset.from_dict({"prompt_ids": [[1]]})
    before = reference_table.reference_table(run, rows, 2048).folder
    assert reference_table.reference_table(run, rows, 2048).folder == before
    monkeypatch.setattr(reference_table, "version", lambda name: "0")
    assert reference_table.reference_table(run, rows, 2048).folder != before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_thousandth_is_rounding_in_bfloat16_and_a_fault_in_float32(dtype):
    """The sums are float32 in both: it is the model's precision that counts."""
    model = tiny_model().to(dtype)
    prompt_layout.choose_layout(
        model, lambda model, packed: log_prob_sums(model, packed) * (1 + (model.packing_limit > 0) / 1000)
    )
    assert (model.packing_limit > 0) == (dtype == torch.bfloat16)
