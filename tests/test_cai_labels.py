"""Soft labels: worked out by hand, at even odds no gradient, and the trainers use them as they stand."""

import math

import pytest
import torch

from alignlab import losses
from alignlab.methods.dpo import soft_label


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
    assert soft_label({}, 0.0) == {}
    assert soft_label({}, 0.1) == {"label": pytest.approx(0.9)}
    assert soft_label({"label": 0.7}, 0.1) == {"label": pytest.approx(0.66)}
