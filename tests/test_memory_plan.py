"""The plans of published recipes fit their hardware, and each number of their account is that of torch."""

import pytest
import torch
from command import ROOT, config
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, GPTNeoXConfig, LlamaConfig

from alignlab.config import model_size
from alignlab.errors import Failure
from alignlab.models.references import Source
from alignlab.pipeline import memory_advice, memory_fit, memory_per_role
from alignlab.training.master_weights import keep_master_weights

GPU = ["hardware.device=cuda", "hardware.memory_gb=80"]
HH = ["dataset=hub", "dataset.path=Anthropic/hh-rlhf"]
RECIPES = {
    "8B SFT on four": ["experiment=llama31_8b_hh_sft", "hardware=zero3", "hardware.processes=4"],
    "8B LoRA PPO": ["method=ppo", "model=llama31_8b", "model/adapter=lora", *HH],
    "GSM8K": ["experiment=gsm8k_qwen25_05b_ppo"],
    "TL;DR": ["experiment=tldr_pythia_1b_ppo"],
}
SIZED = [file.stem for file in (ROOT / "conf" / "model").glob("[a-z]*.yaml") if "\nshape: {" in file.read_text()]


def stages(bound):
    yield from (bound.method, *bound.stages.values())


def inputs_of(settings, folder):
    names = ["policy"] + ["reward_model"] * (settings.name == "ppo")
    return {name: Source("base", folder / "none", "") for name in names}


def estimate(bound, settings, folder):
    return memory_fit.memory_fit(bound, settings, inputs_of(settings, folder), Source("base", folder / "none", ""))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_stage_of_a_recipe_fits(recipe, tmp_path):
    bound = config(*GPU, *RECIPES[recipe])
    for settings in stages(bound):
        memory = estimate(bound, settings, tmp_path)
        assert memory.fits, f"{settings.name}: {[*memory_fit.describe(memory)]}"
        assert memory.total is not None


def on_meta(model):
    """Return the shapes of a model's tensors, by name, built by transformers without memory."""
    widths = model.shape.model_dump()
    settings = AutoConfig.for_model(widths.pop("model_type"), **widths)
    settings.tie_word_embeddings = model_size.tied_to(memory_fit.shape_of_yaml(model), model.parameters).tied
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(settings)
    return {name: list(weight.shape) for name, weight in built.named_parameters()}


@pytest.mark.parametrize("overrides", [*([f"model={name}", *HH, "method=sft"] for name in SIZED), RECIPES["TL;DR"]])
def test_parameters_and_adapters_are_those_of_transformers(overrides):
    model = config(*overrides).model
    tensors = on_meta(model)
    assert model_size.count(tensors) == model.parameters
    matrices = model_size.matrices(model_size.tied_to(memory_fit.shape_of_yaml(model), model.parameters))
    assert model_size.count(matrices) / model.parameters == pytest.approx(1, abs=0.002)
    assert memory_per_role.low_rank(matrices, 16, "all-linear") == memory_per_role.low_rank(tensors, 16, "all-linear")


FAMILIES = {  # with 8B's and Pythia's proportions
    "llama": (LlamaConfig, {"intermediate_size": 896, "num_key_value_heads": 1}),
    "gpt_neox": (GPTNeoXConfig, {"intermediate_size": 1024}),
}


def small_body(family, dtype, adapter):
    """Return a body of two layers in a precision, with adapters in float32 where asked for, and its sizes."""
    torch.manual_seed(0)
    of_family, widths = FAMILIES[family]
    settings = of_family(hidden_size=256, num_hidden_layers=2, num_attention_heads=4, vocab_size=100, **widths)
    model = AutoModel.from_config(settings).to(dtype).train()
    if adapter:
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
        for name, weight in model.named_parameters():
            weight.data = weight.data.float() if "lora_" in name else weight.data
    return model, model_size.read_shape(settings.to_dict())


def kept_bytes(model):
    """Return the bytes that torch keeps for the backward pass of 2 rows of 64 tokens, less the weights."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept = {}

    def keep(tensor):
        place = tensor.untyped_storage().data_ptr()
        if place not in weights and tensor.is_floating_point():
            kept[place] = (tensor.untyped_storage().nbytes(), tensor)  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(torch.randint(0, 100, (2, 64)), use_cache=False)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_activations_of_a_layer_are_what_torch_keeps(family, dtype):
    """At most a quarter less than the bound; what torch keeps beyond it is the last norm's."""
    model, shape = small_body(family, dtype, adapter=False)
    bound = memory_fit.layer_bytes(shape, dtype.itemsize) * 2 * 64 * shape.layers
    assert 0.75 < kept_bytes(model) / bound < 1.05


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_in_float32_keeps_its_inputs_in_float32(family):
    """On weights in bfloat16, which the plan assumes on a GPU; it is more than all weights in bfloat16 keep."""
    model, shape = small_body(family, torch.bfloat16, adapter=True)
    bound = memory_fit.adapted_layer_bytes(shape, "all-linear") * 2 * 64 * shape.layers
    kept = kept_bytes(model)
    assert 0.75 < kept / bound < 1.05
    assert kept > memory_fit.layer_bytes(shape, 2) * 2 * 64 * shape.layers


def test_what_an_adapter_keeps_by_hand():
    """Llama 8B, of each layer and token: two norms, 3 h + 3 k + 3 f in bfloat16, and 6 h + f or 2 h inputs."""
    shape = memory_fit.shape_of_yaml(config("model=llama31_8b", *HH).model)
    frozen = 2 * 4096 * 4 + (3 * 4096 + 3 * 1024 + 3 * 14336) * 2
    assert memory_fit.adapted_layer_bytes(shape, "all-linear") == frozen + (6 * 4096 + 14336) * 4
    assert memory_fit.adapted_layer_bytes(shape, ["q_proj", "v_proj"]) == frozen + 2 * 4096 * 4
    bounds = [memory_per_role.computes_in_float32(config(f"hardware={name}", *GPU).hardware) for name in STRATEGIES]
    assert bounds == [True, True, False, False, False]


STRATEGIES = ("single", "ddp", "zero2", "zero3", "fsdp2")


def test_recomputed_layers_keep_their_inputs_alone():
    model, shape = small_body("llama", torch.bfloat16, adapter=False)
    model.norm = nn.Identity()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    assert kept_bytes(model) == shape.hidden * 2 * 2 * 64 * shape.layers


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_values_are_those_of_a_cache(family):
    bound = config("method=ppo", "model=llama31_8b", *HH, "method.max_length=64", "method.max_new_tokens=8", *GPU)
    model, shape = small_body(family, torch.bfloat16, adapter=False)
    with torch.no_grad():
        cache = model(torch.randint(0, 100, (2, 64)), use_cache=True).past_key_values
    size = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert size == memory_fit.cache_bytes(shape, bound.method, 2, 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_states_are_those_of_adam(dtype):
    """In bfloat16 with a master weight, and a gradient in float32."""
    layer = nn.Linear(64, 64, bias=False).to(getattr(torch, dtype))
    optimizer = torch.optim.AdamW(layer.parameters())
    keep_master_weights(optimizer)
    layer(torch.randn(2, 64, dtype=layer.weight.dtype)).sum().backward()
    gradient = layer.weight.grad
    optimizer.step()
    (master, state), *others = optimizer.state.items()
    tensors = {id(one): one for one in (layer.weight, master, gradient, state["exp_avg"], state["exp_avg_sq"])}
    hardware = config("hardware.device=cpu", f"hardware.dtype={dtype}").hardware
    assert not others
    assert sum(tensor.nbytes for tensor in tensors.values()) == memory_per_role.trained(64 * 64, hardware, 1)


SMALL = [
    ["hardware=ddp", "hardware.processes=4", "method=sft", "model=llama31_8b", *HH],
    ["hardware=zero3", "hardware.processes=2", "method=sft", "model=llama31_8b", *HH, "hardware.micro_batch_size=8"],
    ["method=ppo", "model=pythia_28b", *HH, "hardware.micro_batch_size=8"],
    ["method=dpo", "model=mistral_7b", *HH, "hardware.micro_batch_size=4"],
    ["method=ppo", "model=llama31_8b", *HH, "model/adapter=lora", "hardware.micro_batch_size=4"],
]


@pytest.mark.parametrize(
    "overrides",
    [SMALL[1], *(pytest.param(each, marks=pytest.mark.runs) for each in (SMALL[0], *SMALL[2:]))],
    ids=lambda overrides: " ".join(overrides[:3]),
)
def test_each_suggestion_binds_and_lowers_the_estimate(overrides, tmp_path):
    bound = config(*GPU, *overrides)
    before = estimate(bound, bound.method, tmp_path)
    kinds = list(memory_advice.changes(bound, bound.method))
    suggested = [change for kind in kinds for change in kind] + list(memory_advice.all_changes(bound, bound.method))
    assert len(suggested) >= 3
    for change in suggested:
        after = config(
            *GPU, *[one for one in overrides if not clashes(one, change.overrides)], *change.overrides.split()
        )
        memory = estimate(after, after.method, tmp_path)
        assert memory.total < before.total, change.overrides
        predicted = estimate(change.config, change.settings, tmp_path)
        assert predicted.total == memory.total, change.overrides


def clashes(override, suggestion):
    key = override.partition("=")[0]
    return any(other.partition("=")[0] == key for other in suggestion.split())


def test_a_model_in_a_folder_and_a_published_one_have_a_known_size(tmp_path):
    LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, vocab_size=100).save_pretrained(tmp_path)
    for overrides in (["method=sft", "model=local", f"model.path={tmp_path}", *HH], ["experiment=zephyr_7b_dpo"]):
        bound = config(*GPU, *overrides)
        assert estimate(bound, bound.method, tmp_path / "other").total


def test_micro_batches_are_halved_until_they_fit(tmp_path):
    bound = config(*GPU, "method=sft", "model=mistral_7b", "model/adapter=lora", *HH)
    memory = estimate(bound, bound.method, tmp_path)
    assert memory.fits
    assert memory.step.rows < 32
    assert memory.step.rows * memory.step.accumulation == 32
    assert "(auto)" in str(memory.step)


def test_a_run_on_a_gpu_is_planned_on_a_machine_without_one(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    from alignlab.pipeline import plan

    bound = config(*GPU, "method=sft", "model=mistral_7b", *HH, "dry_run=true")
    lines = "\n".join(plan.show(plan.make(bound)))
    assert "of 80.0 GB" in lines
    assert "policy 130 GB" in lines  # 7.24B weights × 18 bytes: bfloat16


def test_a_run_on_a_gpu_that_is_not_there_is_refused():
    from alignlab.models.load import device

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(Failure, match=r"there is no GPU; use hardware\.device=cpu or auto; dry_run=true plans for one"):
        device(config("hardware.device=cuda").hardware)
