"""Soft labels: worked out by hand, at even odds no gradient, and the trainers use them as they stand."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from command import config

from alignlab import losses
from alignlab.data.views.pairs import ranking_pairs
from alignlab.errors import Failure
from alignlab.methods import dpo
from alignlab.methods.dpo import label_and_weight
from alignlab.models.from_scratch import base_model
from alignlab.runtime.stage_run import Run

pytestmark = pytest.mark.slow


def test_a_soft_label_is_the_loss_of_both_orders():
    margin, label = torch.tensor([0.0, math.log(3), math.log(3)]), torch.tensor([0.8, 1.0, 0.25])
    expected = [math.log(2), -math.log(0.75), -0.25 * math.log(0.75) - 0.75 * math.log(0.25)]
    assert losses.preference(margin, label).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("label", "slope"), [(0.5, 0.0), (1.0, -0.5), (0.0, 0.5), (0.8, -0.3)])
def test_the_gradient_at_margin_zero_is_a_half_minus_the_label(label, slope):
    margin = torch.zeros(1, requires_grad=True)
    losses.preference(margin, torch.tensor([label])).backward()
    assert margin.grad.item() == pytest.approx(slope)


def test_an_undecided_label_moves_no_reward_model():
    chosen, rejected = (torch.full((1,), 0.3, requires_grad=True) for _ in range(2))
    losses.reward(chosen, rejected, 0.0, torch.tensor([0.5])).backward()
    assert chosen.grad.item() == rejected.grad.item() == 0


def test_smoothing_brings_a_label_towards_even_odds():
    assert label_and_weight({}, 0.0) == {}
    assert label_and_weight({}, 0.1) == {"label": pytest.approx(0.9), "weight": 1.0}
    assert label_and_weight({"label": 0.7}, 0.1) == {"label": pytest.approx(0.66), "weight": 1.0}
    assert label_and_weight({"weight": 0.1}, 0.0) == {"label": 1.0, "weight": 0.1}


SETTINGS = [
    "method=dpo", "model=scratch", "dataset=file", "dataset.validation=0", "dataset.test=0",
    "model.vocab_size=300", "model.hidden_size=16", "model.intermediate_size=24", "model.num_hidden_layers=1",
    "model.num_attention_heads=2", "model.num_key_value_heads=2", "hardware.device=cpu", "hardware.threads=1",
    "method.batch_size=8", "method.max_steps=1", "method.logging_steps=1", "method.nll_weight=0",
]  # fmt: skip


def first_gradient(folder, *more, change=list, policy=None):
    """The length of DPO's first gradient on a tiny model (or a policy's folder), in which every margin is 0."""
    rows = folder / "rows.jsonl"
    said = ({"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": "No idea."} for n in range(8))
    rows.write_text("".join(json.dumps(row) + "\n" for row in change(said)))
    settings = config(*SETTINGS, f"dataset.path={rows}", *more)
    policy = policy or base_model(settings.model, settings.dataset)
    logged = []
    track = SimpleNamespace(log=lambda metrics, step: logged.append(metrics))
    dpo.train(Run(settings, settings.method, {"policy": policy}, folder, track))
    if not any("loss_type" in setting for setting in more):
        assert logged[0]["train/loss"] == pytest.approx(math.log(2), abs=1e-4)
    return logged[0]["train/grad_norm"]


def test_smoothing_weakens_the_first_step_of_dpo_by_twice_its_share(tmp_path):
    plain, smoothed = first_gradient(tmp_path), first_gradient(tmp_path, "method.label_smoothing=0.1")
    assert smoothed == pytest.approx(0.8 * plain, rel=1e-3)  # (1/2 - 0.9) / (1/2 - 1)


def test_soft_labels_in_a_file_are_learned_from_and_need_the_sigmoid(tmp_path):
    """Every pair has the label 0.75: the first step is half as long as with sure labels, (1/2 - 0.75) / (1/2 - 1)."""
    soft = lambda rows: [row | {"label": 0.75} for row in rows]  # noqa: E731
    assert first_gradient(tmp_path, change=soft) == pytest.approx(0.5 * first_gradient(tmp_path), rel=1e-3)
    with pytest.raises(Failure, match=r"method.loss_type: ipo has no meaning for pairs whose labels are soft"):
        first_gradient(tmp_path, "method.loss_type=ipo", change=soft)


def weigh(*weights):
    """Give each row its weight; a weight of 0 leaves the row out."""
    return lambda rows: [row | {"weight": one} for row, one in zip(rows, weights, strict=True) if one]


def policy_of_all_rows(folder):
    """The tiny model whose tokenizer knows the words of all eight rows."""
    first_gradient(folder)
    settings = config(*SETTINGS, f"dataset.path={folder / 'rows.jsonl'}")
    return base_model(settings.model, settings.dataset)


@pytest.mark.parametrize(
    "loss_type", ["sigmoid", *(pytest.param(name, marks=pytest.mark.runs) for name in ("ipo", "hinge"))]
)
def test_a_pairs_weight_multiplies_its_part_of_the_gradient(tmp_path, loss_type):
    """Weights are scaled to a mean of 1: six pairs that weigh next to nothing leave TRL's gradient of the other two."""
    loss, policy = f"method.loss_type={loss_type}", policy_of_all_rows(tmp_path)
    heavy = first_gradient(tmp_path, loss, change=weigh(*[1e-6] * 6, 1.0, 1.0), policy=policy)
    alone = first_gradient(tmp_path, loss, "method.batch_size=2", change=weigh(*[0] * 6, 1.0, 1.0), policy=policy)
    assert heavy == pytest.approx(alone, rel=1e-3)
    assert heavy != pytest.approx(first_gradient(tmp_path, loss, policy=policy), rel=1e-3)


def test_a_ranking_of_five_answers_counts_as_one_prompt():
    """Its ten pairs together have the weight of one pair of another prompt."""
    row = {"id": "a", "prompt": [], "weight": 1.0, "label": 1.0, "completions": list("abcde"), "cut_off": []}
    weights = [pair["weight"] for pair in ranking_pairs(row)]
    assert weights == pytest.approx([0.1] * 10)
