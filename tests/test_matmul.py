"""Products of float32 matrices on a CPU: which library multiplies, and that its results are those of the other."""

import os
import subprocess
import sys

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import alignlab
from alignlab.pipeline import fingerprint
from alignlab.runtime import matmul, process_state

AMD = {"cpu_name": "AMD EPYC", "avx512_f": True, "avx512_bw": True, "avx512_vl": True, "avx512_dq": True}


def rounded(first, second):
    """Multiply as a library does that rounds the factors to bfloat16."""
    return first.bfloat16().float() @ second.bfloat16().float()


@pytest.mark.parametrize("size", matmul.SIZES)
def test_the_probe_notices_digits_that_are_lost(size):
    assert matmul.keeps_digits_of(size)
    assert not matmul.keeps_digits_of(size, rounded)
    assert not matmul.keeps_digits_of(size, lambda first, second: rounded(first.T, second.T).T)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (AMD, True),
        (AMD | {"amx_tile": True}, False),
        (AMD | {"amx_bf16": True}, False),
        (AMD | {"avx512_dq": False}, False),
        (AMD | {"cpu_name": "Intel(R) Xeon(R)"}, False),
        ({}, False),
    ],
)
def test_onednn_is_for_processors_without_matrix_units_that_mkl_uses_by_half(facts, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: facts, raising=False)
    assert matmul.has_half_width_mkl() is expected


def gradients(setting):
    """Return the loss of a small Llama, and the gradients of its weights."""
    torch.manual_seed(0)
    shape = {"hidden_size": 96, "intermediate_size": 200, "num_hidden_layers": 3, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=500, num_key_value_heads=2, **shape))
    ids = torch.randint(0, 500, (7, 61))
    with matmul.using(setting):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
    return loss.item(), {name: weight.grad for name, weight in model.named_parameters()}


def test_both_libraries_give_the_same_loss_and_gradients():
    (loss, ours), (expected, theirs) = gradients("auto"), gradients("torch")
    assert loss == pytest.approx(expected, abs=1e-5)
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-5) for name in theirs)


def allowed():
    return torch.get_float32_matmul_precision()


@pytest.mark.skipif(not matmul.onednn_pays(), reason="torch's own choice is the faster one on this processor")
def test_onednn_is_used_where_it_pays_and_its_products_keep_every_digit():
    assert matmul.library("auto") == "onednn"
    before = allowed()
    with matmul.using("auto"):
        assert allowed() == matmul.ALLOWED != before
        assert all(map(matmul.keeps_digits_of, matmul.SIZES))
    with matmul.using("torch"):
        assert allowed() == matmul.NONE
    assert allowed() == before


def attend(setting):
    """Return the gradients of queries, keys and values through transformers' attention."""
    generator, module = torch.Generator().manual_seed(0), torch.nn.Identity()
    tensors = [torch.randn(4, 2, size, 64, generator=generator).requires_grad_() for size in (3, 130, 130)]
    with matmul.using(setting):
        output, _ = ALL_ATTENTION_FUNCTIONS["sdpa"](module, *tensors, None, is_causal=False)
        output.square().sum().backward()
        assert allowed() == (matmul.ALLOWED if matmul.library(setting) == "onednn" else matmul.NONE)
    return [tensor.grad for tensor in tensors]


@pytest.mark.skipif(not matmul.onednn_pays(), reason="torch's own choice is the faster one on this processor")
def test_attention_multiplies_by_torch_in_both_directions():
    with matmul.using("auto"):
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is matmul.attention
    assert all(torch.equal(first, second) for first, second in zip(attend("auto"), attend("torch"), strict=True))


def test_where_there_is_a_gpu_torch_chooses_and_keeps_what_the_user_allows(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not matmul.onednn_pays.__wrapped__()
    monkeypatch.setattr(matmul, "onednn_pays", lambda: False)
    with matmul.restored():
        matmul.allow(matmul.ALLOWED)
        matmul.use("auto")
        assert allowed() == matmul.ALLOWED


def test_a_precision_that_was_set_for_each_library_apart_stays():
    script = (
        "import torch; torch.backends.mkldnn.matmul.fp32_precision = 'tf32'; from alignlab.runtime import matmul; "
        "matmul.use('auto'); print(torch.backends.mkldnn.matmul.fp32_precision, matmul.library('auto'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tf32", "torch"]


def test_a_run_leaves_torch_and_the_environment_as_they_were():
    before = allowed(), dict(os.environ)
    with process_state.restored():
        matmul.use("auto")
        used = matmul.attention if matmul.onednn_pays() else sdpa_attention_forward
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is used
    assert (allowed(), dict(os.environ), ALL_ATTENTION_FUNCTIONS["sdpa"]) == (*before, sdpa_attention_forward)


def test_the_library_is_part_of_a_stages_fingerprint(monkeypatch):
    config = alignlab.compose("hardware.device=cpu", "hardware.threads=1")
    assert fingerprint.arithmetic(config) == ["cpu", "torch.float32", 1, matmul.library("auto")]
    other = alignlab.compose("hardware.device=cpu", "hardware.threads=1", "hardware.matmul=torch")
    assert fingerprint.arithmetic(other) == ["cpu", "torch.float32", 1, "torch"]
