"""Saved weights: in the dtype of the base, adapters merged in float32; and frozen weights in 4 bits."""

import copy
import json

import pytest
import torch
from command import config
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from tiny import tiny_model, tiny_tokenizer

from alignlab.errors import Failure, Mistake
from alignlab.models import four_bit, load
from alignlab.pipeline import plan
from alignlab.pipeline.memory_per_role import FOUR_BIT_BYTES
from alignlab.pipeline.prepare_inputs import prepare_data

SMALL = ["model=pocket_small", "dataset=pocket_small"]


@pytest.fixture
def base(tmp_path):
    """The folder of a model whose file is in bfloat16."""
    tiny_model().to(torch.bfloat16).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def adapted(dtype):
    """Return a model in a precision with a low-rank adapter in float32 that changes it."""
    torch.manual_seed(0)
    model = get_peft_model(tiny_model().to(torch.bfloat16).to(dtype), LoraConfig(r=2, target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return model


def by_hand(model, layer):
    """Return a layer's weight plus its adapter, computed in float32."""
    return layer.get_base_layer().weight.float() + layer.get_delta_weight("default").float()


def saved(folder):
    with safe_open(folder / "model.safetensors", framework="pt") as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_is_merged_in_float32_and_saved_in_the_dtype_of_the_base(base, tmp_path, dtype):
    model = adapted(dtype)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    expected = by_hand(model, layer).detach().to(torch.bfloat16)
    load.save(model, tiny_tokenizer(), tmp_path / "model", base)
    weights = saved(tmp_path / "model")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert torch.equal(weights["model.layers.0.self_attn.q_proj.weight"], expected)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "bfloat16"


def test_weights_trained_in_float32_are_saved_as_the_base_is(base, tmp_path):
    load.save(tiny_model(), tiny_tokenizer(), tmp_path / "model", base)
    assert {tensor.dtype for tensor in saved(tmp_path / "model").values()} == {torch.bfloat16}
    load.save(tiny_model(), tiny_tokenizer(), tmp_path / "again")
    assert {tensor.dtype for tensor in saved(tmp_path / "again").values()} == {torch.float32}


def test_the_merge_of_quantised_weights_is_pefts_merge_where_nothing_is_quantised():
    model = adapted(torch.float32)
    expected = copy.deepcopy(model).merge_and_unload().state_dict()
    whole = four_bit.merge(model).state_dict()
    assert whole.keys() == expected.keys()
    assert all(torch.allclose(whole[name], expected[name], atol=1e-6) for name in expected)


def test_4_bits_are_refused_without_a_gpu_and_where_weights_are_partitioned():
    bound = config("model/adapter=qlora", "method=dpo", "hardware.device=cuda", "dry_run=true", *SMALL)
    if not torch.cuda.is_available():
        with pytest.raises(Failure, match="weights in 4 bits need a CUDA GPU; use model/adapter=lora"):
            four_bit.check(bound)
    with pytest.raises(Mistake, match="weights in 4 bits need a CUDA GPU"):
        config("model/adapter=qlora", "hardware.device=cpu", *SMALL)
    with pytest.raises(Mistake, match="hardware=zero3 partitions weights"):
        config("model/adapter=qlora", "hardware=zero3", "hardware.device=cuda", *SMALL)


def test_the_plan_of_llama_8b_in_4_bits_by_hand():
    """Of 32 layers, q, o (4096 x 4096), k, v (4096 x 1024) and three of 4096 x 14336 have 4 bits; the rest 2 bytes."""
    linear = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    expected = linear * FOUR_BIT_BYTES + (8_030_261_248 - linear) * 2
    bound = config(
        *("model=llama31_8b", "model/adapter=qlora", "method=dpo", "dataset=pocket_small"),
        *("hardware.device=cuda", "hardware.memory_gb=24", "dry_run=true"),
    )
    prepare_data(bound)
    lines = "\n".join(plan.show(plan.make(bound)))
    assert f"frozen weights {expected / 1e9:.1f} GB (linear layers in 4 bits)" in lines
