"""The losses by hand."""

from math import log

import pytest
import torch
from torch import tensor

from alignlab import losses


def close(found, expected):
    assert (
        found.tolist() == pytest.approx(expected, abs=1e-6)
        if found.dim() < 2
        else torch.allclose(found, tensor(expected), atol=1e-6)
    )


def test_the_estimators_of_kl_by_hand():
    logps, reference = tensor([log(0.5), log(0.2)]), tensor([log(0.25), log(0.4)])
    close(losses.kl_estimate(logps, reference, "k1"), [log(2), -log(2)])
    close(losses.kl_estimate(logps, reference, "k2"), [log(2) ** 2 / 2] * 2)
    close(losses.kl_estimate(logps, reference, "k3"), [0.5 - 1 + log(2), 2 - 1 - log(2)])


def test_k1_and_k3_are_unbiased_and_the_exact_kl_is_their_mean():
    p, q = tensor([0.5, 0.3, 0.2]), tensor([0.2, 0.2, 0.6])
    exact = (p * (p / q).log()).sum().item()
    assert losses.kl_of(p.log(), q.log()).item() == pytest.approx(exact, abs=1e-6)
    for kind in ("k1", "k3"):
        assert (p * losses.kl_estimate(p.log(), q.log(), kind)).sum().item() == pytest.approx(exact, abs=1e-6)


def test_the_exact_kl_leaves_out_what_is_ruled_out():
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 7, 5)
    ruled = [torch.nn.functional.pad(logits, (0, 1), value=-torch.inf).log_softmax(-1) for logits in (ours, theirs)]
    ours, theirs = ours.log_softmax(-1), theirs.log_softmax(-1)
    close(losses.kl_of(*ruled), losses.kl_of(ours, theirs).tolist())
    close(losses.kl_of(ours, ours), [0.0] * 7)


def test_entropy_of_even_odds_is_the_log_of_their_number():
    close(losses.entropy_of(tensor([[0.0, 0.0, -torch.inf], [5.0, 5.0, 5.0]]).log_softmax(-1)), [log(2), log(3)])


def test_entropy_has_a_gradient_where_a_token_is_ruled_out():
    logits = tensor([log(3), 0.0, -torch.inf], requires_grad=True)  # shares 3/4 and 1/4
    losses.entropy_of(logits.log_softmax(-1)).backward()
    expected = -0.75 * 0.25 * log(3)  # -p (log p + H)
    close(logits.grad, [expected, -expected, 0.0])


def test_whitening_looks_at_real_tokens_alone():
    mask = tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    found = losses.whiten(tensor([[1.0, 2.0, 99.0], [3.0, -99.0, 99.0]]), mask)
    close(found, [[-(1.5**0.5), 0.0, 0.0], [1.5**0.5, 0.0, 0.0]])


def test_the_score_stands_on_the_last_real_token_and_the_penalty_on_every_one():
    mask = tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    found = losses.token_rewards(tensor([2.0, -1.0]), tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), mask, 0.1)
    close(found, [[-0.1, -0.2, 1.7], [-1.4, 0.0, 0.0]])


def test_advantages_by_hand():
    rewards, values = tensor([[0.0, 1.0, 7.0]]), tensor([[0.5, 0.2, 9.0]])
    mask = tensor([[1.0, 1.0, 0.0]])  # the third token is padding: it is worth nothing
    last = 1.0 - 0.2
    first = (0.0 + 0.9 * 0.2 - 0.5) + 0.9 * 0.8 * last
    close(losses.advantages(rewards, values, mask, gamma=0.9, lam=0.8), [[first, last, 0.0]])


def test_with_lambda_one_the_advantage_is_the_return_less_the_value():
    torch.manual_seed(0)
    rewards, values = torch.randn(2, 4, 6)
    mask = torch.ones(4, 6)
    found = losses.advantages(rewards, values, mask, gamma=1.0, lam=1.0)
    close(found + values, rewards.flip(1).cumsum(1).flip(1).tolist())


def test_the_clipped_loss_by_hand():
    logps, old = tensor([log(0.6), log(0.6), log(0.3), log(0.3)]), tensor([log(0.4)] * 4)
    found = losses.clipped_policy(logps, old, tensor([1.0, -1.0, 1.0, -1.0]), 0.2)
    close(found, [-1.2, 1.5, -0.75, 0.8])
    close(losses.clipped_policy(old, old, tensor([1.0, -2.0, 0.5, 0.0]), 0.2), [-1.0, 2.0, -0.5, 0.0])


def test_the_clipped_value_loss_by_hand():
    values, old, returns = tensor([1.0, 1.0, 0.1]), tensor([0.0, 0.0, 0.0]), tensor([0.0, 2.0, 1.0])
    close(losses.clipped_value(values, old, returns, 0.2), [0.5, 1.8**2 / 2, 0.9**2 / 2])


def test_a_policy_that_has_not_moved_has_the_gradient_of_policy_gradient():
    logits = tensor([[0.3, -0.2, 0.5]], requires_grad=True)
    logps = logits.log_softmax(-1)[:, 1]
    losses.clipped_policy(logps, logps.detach(), tensor([2.0]), 0.2).sum().backward()
    shares = logits.detach().softmax(-1)[0]
    close(logits.grad[0], [2 * shares[0].item(), -2 * (1 - shares[1].item()), 2 * shares[2].item()])


def test_kto_is_a_sigmoid_around_the_kl_term():
    """beta 0.5, KL 1: a good r = 3 loses sigmoid(-1), a bad one sigmoid(1), and at r = KL both lose 1/2."""
    ratios, desirable = torch.tensor([3.0, 3.0, 1.0, 1.0]), torch.tensor([True, False, True, False])
    close(losses.kto(ratios, desirable, 1.0, 0.5), [0.26894142, 0.73105858, 0.5, 0.5])
