"""Master weights: the optimizer steps in float32, and the model's bfloat16 weights are the rounded copies."""

import copy

import torch
from tiny import tiny_model
from torch.optim import AdamW

from alignlab.training.master_weights import keep_master_weights


def gradients(model, seed):
    ids = torch.randint(0, 20, (4, 12), generator=torch.Generator().manual_seed(seed))
    model(input_ids=ids, labels=ids).loss.backward()


def test_steps_too_small_for_bfloat16_add_up():
    """By hand: 1 - 100 steps of 1e-4 is 0.99, and each step alone is lost in 8 bits."""
    plain, kept = (torch.nn.Parameter(torch.ones(1, dtype=torch.bfloat16)) for _ in range(2))
    lost, optimizer = torch.optim.SGD([plain], lr=1e-4), torch.optim.SGD([kept], lr=1e-4)
    ((_, master),) = keep_master_weights(optimizer)
    for _ in range(100):
        for weight, each in ((plain, lost), (kept, optimizer)):
            weight.sum().backward()
            each.step()
            weight.grad = None
    assert plain.item() == 1
    assert abs(master.item() - 0.99) < 1e-5
    assert kept.item() == torch.tensor(0.99).bfloat16().item()


def test_gradients_are_accumulated_and_clipped_in_float32():
    model = tiny_model().bfloat16()
    keep_master_weights(AdamW(model.parameters()))
    gradients(model, 0)
    first = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    gradients(model, 1)
    second = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    gradients(model, 0)
    for name, weight in model.named_parameters():
        assert weight.grad.dtype == torch.float32
        assert torch.equal(weight.grad, first[name] + second[name])
    assert torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).dtype == torch.float32


def test_steps_are_those_of_adam_in_float32_with_the_same_gradients():
    model = tiny_model().bfloat16()
    exact = [torch.nn.Parameter(weight.detach().float()) for weight in model.parameters()]
    theirs, ours = AdamW(exact, lr=1e-3, weight_decay=0.1), AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    pairs = keep_master_weights(ours)
    for seed in range(3):
        gradients(model, seed)
        for weight, parameter in zip(exact, model.parameters(), strict=True):
            weight.grad = parameter.grad.float()
        theirs.step()
        ours.step()
        model.zero_grad()
    for (weight, master), expected in zip(pairs, exact, strict=True):
        assert torch.equal(master, expected)
        assert torch.equal(weight, expected.bfloat16())


def test_the_state_resumes_exactly(tmp_path):
    model = tiny_model().bfloat16()
    optimizer = AdamW(model.parameters(), lr=1e-3)
    keep_master_weights(optimizer)
    gradients(model, 0)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    resumed = copy.deepcopy(model)
    again = AdamW(resumed.parameters(), lr=1e-3)
    keep_master_weights(again)
    again.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    for each, steps in ((model, optimizer), (resumed, again)):
        each.zero_grad()
        gradients(each, 1)
        steps.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), resumed.parameters(), strict=True))


def test_weights_in_float32_are_left_alone():
    model = tiny_model()
    optimizer = AdamW(model.parameters())
    assert keep_master_weights(optimizer) == []
    assert optimizer.param_groups[0]["params"][0] is next(model.parameters())
