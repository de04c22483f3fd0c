"""Log-probabilities of completions: parity with a computation row by row, and laws of padding."""

import re

import pytest
import torch
from command import ROOT
from tiny import ask, tiny_model, tiny_tokenizer
from transformers import T5Config, T5ForConditionalGeneration

from alignlab.chat import Encoded, encode
from alignlab.models.log_probs import (
    PLAIN,
    batches_by_length,
    completion_log_probs,
    completion_states,
    forward,
    hidden_states,
    inputs,
    pad_rows,
    row_length,
    sampling_logits,
    score_completions,
    summed_log_probs,
    token_log_probs,
)

ROWS = [Encoded([6, 7], [12, 13, 2]), Encoded([8, 9, 10, 11, 5], [14]), Encoded([9], [10, 11, 12, 13, 2])]


def tiny_t5():
    torch.manual_seed(0)
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0}
    ids = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    return T5ForConditionalGeneration(T5Config(vocab_size=20, **shape, **ids)).eval()


MODELS = {"decoder": tiny_model, "encoder-decoder": tiny_t5}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]().requires_grad_(False)


def naive(model, row):
    """The log-probabilities of one completion, one token after the other, each from a forward pass of its own."""
    values = []
    for k, token in enumerate(row.completion):
        before = row.completion[:k]
        if model.config.is_encoder_decoder:
            logits = model(torch.tensor([row.prompt]), decoder_input_ids=torch.tensor([[0, *before]])).logits
        else:
            logits = model(torch.tensor([row.prompt + before])).logits
        values.append(logits[0, -1].double().softmax(-1)[token].log().item())
    return values


def test_a_batch_equals_a_forward_pass_for_every_token(model):
    (batch,) = completion_log_probs(model, ROWS, [[2, 0, 1]])
    assert list(batch) == [2, 0, 1]
    for row, log_probs in batch.items():
        assert log_probs.tolist() == pytest.approx(naive(model, ROWS[row]), abs=1e-5)


def test_padding_changes_nothing(model):
    batches = [[0], [1], [2]], [[0, 1, 2]], [[0, 2], [1]]
    alone, *others = (
        {row: values for batch in completion_log_probs(model, ROWS, plan) for row, values in batch.items()}
        for plan in batches
    )
    for other in others:
        assert all(torch.allclose(alone[row], other[row], atol=1e-5) for row in range(3))


def test_padded_rows_of_training_have_the_same_log_probabilities(model):
    (batch,) = completion_log_probs(model, ROWS, [[0, 1, 2]])
    rows = pad_rows([row.prompt for row in ROWS], [row.completion for row in ROWS], 0, "cpu")
    computed = forward(model, rows)
    log_probs = score_completions(computed, rows.completion, rows.mask, PLAIN).logps
    assert computed.states.shape == (3, 5, 16)
    for number, row in enumerate(ROWS):
        size = len(row.completion)
        assert torch.allclose(log_probs[number, :size], batch[number], atol=1e-5)
        assert not log_probs[number, size:].any()


def test_whole_rows_padded_on_the_right_have_the_gradients_of_prompts_padded_on_the_left():
    plain, model = tiny_model(), tiny_model()
    rows = pad_rows([row.prompt for row in ROWS], [row.completion for row in ROWS], 0, "cpu")
    mask = torch.cat([rows.prompt_mask, rows.mask[:, :-1]], dim=1)
    ids, positions = torch.cat([rows.prompt, rows.completion[:, :-1]], dim=1), (mask.cumsum(1) - 1).clamp(min=0)
    logits = plain(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -5:]
    expected = (logits.log_softmax(-1).gather(-1, rows.completion[..., None]).squeeze(-1) * rows.mask).sum()
    computed = score_completions(forward(model, rows), rows.completion, rows.mask, PLAIN).logps.sum()
    assert inputs(model, rows)["input_ids"].shape[1] == max(map(row_length, ROWS)) - 1 < ids.shape[1]
    for loss in (expected, computed):
        loss.backward()
    for one, other in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-5)


def test_the_states_of_a_body_are_those_of_the_whole_model():
    model = tiny_model().requires_grad_(False)
    rows = pad_rows([row.prompt for row in ROWS], [row.completion for row in ROWS], 0, "cpu")
    assert torch.equal(hidden_states(model.model, rows), forward(model, rows).states)


def test_temperature_and_masked_tokens_make_the_sampling_distribution():
    logits = torch.tensor([[1.0, 2.0, 4.0]])
    log_probs = token_log_probs(sampling_logits(logits, 2.0, [2]), torch.tensor([1]))
    assert log_probs.exp().item() == pytest.approx(1 / (1 + torch.tensor(-0.5).exp().item()))
    masked = sampling_logits(logits, 2.0, [2])
    assert token_log_probs(masked, torch.tensor([2]), torch.tensor([0])).tolist() == [0.0]
    assert logits.tolist() == [[1.0, 2.0, 4.0]]


def test_masked_padding_has_no_gradient():
    logits = torch.zeros(1, 3, requires_grad=True)
    token_log_probs(sampling_logits(logits, 1.0, [2]), torch.tensor([2]), torch.tensor([0])).sum().backward()
    assert logits.grad.tolist() == [[0.0, 0.0, 0.0]]


def test_only_the_logits_of_completions_are_computed():
    model, sizes = tiny_model(), []
    model.lm_head.register_forward_hook(lambda _module, _inputs, logits: sizes.append(logits.shape[0]))
    hidden, tokens, mask = completion_states(model, ROWS[:2])
    assert tokens[mask > 0].tolist() == [12, 13, 2, 14]
    sizes.clear()
    score_completions(hidden, tokens, mask, PLAIN)
    assert sizes == [10]  # from the shorter prompt's end to the longer row's end, of two rows


def test_the_log_probability_of_a_text_includes_its_end_of_turn():
    model, tokenizer = tiny_model().requires_grad_(False), tiny_tokenizer()
    prompts, texts = [ask("how", "do", "i", "bake"), ask("why"), ask("stop", "now")], ["mix flour", "no", "yes yes yes"]
    sums = summed_log_probs(model, tokenizer, prompts, texts, batch_size=2)
    rows = [encode(tokenizer, prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
    assert sums == pytest.approx([sum(naive(model, row)) for row in rows], abs=1e-5)


def test_batches_hold_every_row_once_within_so_many_tokens():
    rows = [Encoded([0] * n, [0]) for n in (3, 9, 1, 5, 5, 40)]
    batches = list(batches_by_length(rows, 12))
    assert batches == [[5], [1], [3, 4], [2, 0]]


def test_logits_become_log_probabilities_in_one_module_besides_the_losses():
    computes = re.compile(r"log_softmax|logsumexp|cross_entropy|nll_loss|fused_lm_head|\.gather\(-1,")
    files = sorted((ROOT / "alignlab").rglob("*.py"))
    owners = [str(file.relative_to(ROOT / "alignlab")) for file in files if computes.search(file.read_text("utf-8"))]
    assert owners == ["losses.py", "models/log_probs.py"]


def test_prompts_and_rows_are_cut_in_one_module():
    cuts = re.compile(r"max_position_embeddings\", None|\[-room:\]|\[-\(max_length|\[: ?max_length - 1\]")
    files = sorted((ROOT / "alignlab").rglob("*.py"))
    owners = [str(file.relative_to(ROOT / "alignlab")) for file in files if cuts.search(file.read_text("utf-8"))]
    assert owners == ["models/reward_heads.py", "models/truncation.py"]  # the first tells transformers its limit
