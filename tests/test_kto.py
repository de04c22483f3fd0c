"""KTO: TRL's loss, one KL term for each optimizer step on any micro-batch, weights of unbalanced labels, refusals."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from command import config
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from tiny import tiny_model, tiny_tokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from alignlab.errors import Failure
from alignlab.methods import kto
from alignlab.models.from_scratch import base_model
from alignlab.runtime.stage_run import Run
from alignlab.training.dpo_trainer import SoftLabelDPOTrainer
from alignlab.training.kto_trainer import StepKTOTrainer, partners

pytestmark = pytest.mark.slow

SETTINGS = [
    "method=kto", "model=scratch", "dataset=file", "dataset.validation=0", "dataset.test=0",
    "model.vocab_size=300", "model.hidden_size=16", "model.intermediate_size=24", "model.num_hidden_layers=1",
    "model.num_attention_heads=2", "model.num_key_value_heads=2", "hardware.device=cpu", "hardware.threads=1",
    "method.batch_size=32", "method.max_steps=3", "method.logging_steps=1",
    "method.desirable_ratio=20", "method.learning_rate=1e-2",
    "method.adam_epsilon=1e-5",  # less would make an update of rounding, where a gradient is near 0
]  # fmt: skip
# Layout and micro-batch.
FEW, MORE = [("tokens", 2), ("rows", 8)], [("tokens", 1), ("tokens", 8), ("tokens", 32), ("rows", 2), ("rows", 1)]
EVALUATED = "dataset.validation=0.2", "method.eval_steps=1"


def labels(path, good=lambda number: number % 3 != 0):
    """Forty labelled answers in TRL's form, two thirds of them good."""
    rows = [
        {"prompt": f"What is {'very ' * (n % 4)}{n}?", "completion": f"It is {n}{'!' * (n % 5)}.", "label": good(n)}
        for n in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def learn(folder, rows, *more):
    """Train three steps, the second with the last eight rows of an epoch; return what is logged and the weights."""
    folder.mkdir(exist_ok=True)
    settings = config(*SETTINGS, f"dataset.path={rows}", *more)
    logged = []
    track = SimpleNamespace(log=lambda metrics, step: logged.append(metrics))
    kto.train(Run(settings, settings.method, {"policy": base_model(settings.model, settings.dataset)}, folder, track))
    return logged, load_file(folder / "model" / "model.safetensors")


@pytest.mark.parametrize(("sizes", "more"), [(FEW, ()), pytest.param(MORE, EVALUATED, marks=pytest.mark.runs)])
def test_micro_batches_change_neither_losses_nor_weights(tmp_path, sizes, more):
    """32 rows at once or fewer, by rows or by tokens: the KL term is one of the step, and so are losses and weights."""
    rows = labels(tmp_path / "rows.jsonl")
    whole, weights = learn(tmp_path / "32", rows, "hardware.micro_batch_size=32", "hardware.layout=rows", *more)
    assert max(metrics.get("train/kl", 0) for metrics in whole) > 0
    for layout, size in sizes:
        layout_and_size = f"hardware.layout={layout}", f"hardware.micro_batch_size={size}"
        parts, others = learn(tmp_path / "-".join(layout_and_size), rows, *layout_and_size, *more)
        names = ["train/loss", "train/grad_norm", "train/kl", "eval/loss"]
        names += ["reward/margin"] * (layout == "tokens")  # by rows, it is a mean over micro-batches
        for name in names:
            values = [[metrics[name] for metrics in each if name in metrics] for each in (whole, parts)]
            exact = 1e-6 if name == "train/loss" else 1e-5  # after steps on weights that rounding has moved apart
            assert values[0] == pytest.approx(values[1], rel=exact, abs=1e-6)
        assert all(torch.allclose(weights[name], others[name], atol=1e-6) for name in weights)


@pytest.mark.parametrize(("eval_steps", "layout"), [("null", "rows"), ("1", "tokens")])
def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(tmp_path, eval_steps, layout):
    """Dropout has the same masks in both: the KL term, which comes before the random state is read, draws none."""
    rows, folder = labels(tmp_path / "rows.jsonl"), tmp_path / "run"
    more = "dataset.validation=0.2", "method.dropout=0.3", f"method.eval_steps={eval_steps}", "method.save_steps=1"
    more = *more, "method.save_total_limit=9", "method.batch_size=8", f"hardware.layout={layout}"
    _, whole = learn(folder, rows, *more)
    for step in (2, 3):
        shutil.rmtree(folder / "checkpoints" / f"checkpoint-{step}")
    _, resumed = learn(folder, rows, *more)
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())


@pytest.fixture
def trainers(tmp_path):
    """TRL's trainer and ours on one batch of four rows, with a policy that is not the reference."""
    columns = {
        "prompt_ids": [[1, 4, 6], [1, 4, 7, 8], [1, 4, 9], [1, 4, 10]],
        "completion_ids": [[11, 2], [12, 13, 2], [14, 2], [15, 16, 17, 2]],
        "label": [True, False, False, True],
        "weight": [1.0] * 4,
    }
    columns["KL_completion_ids"] = columns["completion_ids"][1:] + columns["completion_ids"][:1]

    def make(trainer_class, loss_type):
        kept = type("Kept", (trainer_class,), {"_prepare_dataset": lambda self, rows, *_: rows})
        arguments = KTOConfig(
            str(tmp_path), beta=0.3, desirable_weight=1.5, loss_type=loss_type, use_cpu=True, bf16=False,
            report_to="none", max_length=None, gradient_checkpointing=False,
        )  # fmt: skip
        options = {"train_dataset": Dataset.from_dict(columns), "processing_class": tiny_tokenizer()}
        trainer = kept(model=tiny_model(0), ref_model=tiny_model(1), args=arguments, **options)
        trainer.model.train()
        return trainer, trainer.data_collator(
            [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        )

    return make


def test_the_loss_of_a_step_is_trls(trainers):
    theirs, batch = trainers(KTOTrainer, "kto")
    expected = theirs._compute_loss(theirs.model, batch, False)
    ours, batch = trainers(StepKTOTrainer, "apo_zero_unpaired")
    ours.waiting, ours.rows_in_step, ours.rows_now, ours.micro_batches = [4], 4, 4, 1
    ours.in_step = [sum(ours.counts([batch])[0])]
    loss = ours._compute_loss(ours.model, batch, False)
    assert ours.in_step[0] != 0
    torch.testing.assert_close(loss, expected)
    for each in (loss, expected):
        each.backward()
    for mine, other in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_the_reference_has_no_dropout(tmp_path, monkeypatch):
    """It is the policy with its adapter off, in KTO and in DPO by rows; the policy's dropout stays on."""
    model, seen = tiny_model(0), []
    columns = {"prompt_ids": [[1, 4, 6]] * 2, "chosen_ids": [[11, 2]] * 2, "rejected_ids": [[12, 13, 2]] * 2}
    model.config.attention_dropout = 0.5
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    kept = type("Kept", (SoftLabelDPOTrainer,), {"_prepare_dataset": lambda self, rows, *_: rows})
    arguments = DPOConfig(
        str(tmp_path), use_cpu=True, bf16=False, report_to="none", max_length=None, disable_dropout=False,
        gradient_checkpointing=False,
    )  # fmt: skip
    options = {"train_dataset": Dataset.from_dict(columns), "processing_class": tiny_tokenizer()}
    trainer = kept(model=model, args=arguments, peft_config=LoraConfig(target_modules="all-linear"), **options)
    trainer.waiting, trainer.rows_in_step, trainer.rows_now, trainer.micro_batches = [2], 2, 2, 1
    trainer.in_step = [4]
    batch = trainer.data_collator([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])
    monkeypatch.setattr(
        DPOTrainer, "_compute_loss", lambda self, model, inputs, _: seen.append((model.training, inputs))
    )
    trainer.model.train()
    trainer._compute_loss(trainer.model, batch, False)
    ((is_training, inputs),) = seen
    logits = tiny_model(0)(batch["input_ids"]).logits[:, :-1].log_softmax(-1)
    tokens = logits.gather(-1, batch["input_ids"][:, 1:, None])[..., 0] * batch["completion_mask"][:, 1:]
    assert is_training
    torch.testing.assert_close(torch.cat([inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]]), tokens.sum(1))


def test_each_row_is_once_the_partner_of_another():
    partner = partners(50, torch.Generator().manual_seed(0))
    assert sorted(partner.tolist()) == list(range(50))
    assert (partner != torch.arange(50)).all()


@pytest.mark.parametrize(
    ("good", "bad", "ratio", "weights"),
    [
        (10, 80, 1, (8, 1)),
        (10, 80, 4 / 3, (32 / 3, 1)),
        (80, 10, 1, (1, 8)),
        (80, 10, 4 / 3, (1, 6)),
        (5, 5, 1, (1, 1)),
    ],
)
def test_the_rarer_kind_of_label_weighs_more(good, bad, ratio, weights):
    """The paper's example has one good label for eight bad ones: weights from 8 to 10.67 and 1."""
    assert kto.class_weights({True: good, False: bad}, ratio) == pytest.approx(weights)


def test_labels_of_one_kind_are_refused(tmp_path):
    with pytest.raises(Failure, match="all 40 labels are good; give labels of both kinds"):
        learn(tmp_path / "run", labels(tmp_path / "rows.jsonl", good=lambda _: True))
