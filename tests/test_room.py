"""Whether a stage fits: shares of states by hand, activations against what torch keeps, advice, and time."""

import json

import pytest
from command import ROOT, alignlab, config

from alignlab.config import model_size
from alignlab.errors import Failure
from alignlab.models.references import Source
from alignlab.pipeline import memory_advice, memory_fit, memory_per_role, plan, time_estimate

LLAMA = 8_030_261_248
BODY = LLAMA - 128_256 * 4096 - (2 * 32 + 1) * 4096  # without its head and norms
LOGITS = 2**24 * 4 * 3  # a chunk of logits, its exponentials and its gradient
HUB = ["model=llama31_8b", "dataset=hub", "dataset.path=owner/rows", "method=sft", "hardware.dtype=bfloat16"]
SHORT = "method.max_length=512"
FOUR = ["hardware.processes=4", "hardware.micro_batch_size=1"]


def on(*overrides):
    return config("hardware.dtype=bfloat16", *overrides).hardware


@pytest.mark.parametrize(
    ("given", "bytes_each"),
    [
        (["hardware=single"], 2 + 4 + 12),  # the gradient is accumulated in float32
        (["hardware=single", "hardware.dtype=float32"], 16),
        (["hardware=ddp"], 2 + 4 + 12 + 4),  # gradients again in buckets
        (["hardware=zero2"], 2 + (2 + 12) / 4),
        (["hardware=zero2", "hardware.dtype=float32"], 4 + (4 + 8 + 4) / 4),
        (["hardware=zero3"], 16 / 4),
        (["hardware=zero3", "hardware.dtype=float32"], 16 / 4),
        (["hardware=fsdp2"], 16 / 4),
        (["hardware=zero3_offload"], 0),
    ],
)
def test_states_are_shared_out_as_the_strategy_does_it(given, bytes_each):
    """Rajbhandari et al. 2020, figure 1, with 4 devices."""
    assert memory_per_role.trained(1_000_000, on(*given), 4) == 1_000_000 * bytes_each


def sized(tmp_path, *overrides):
    bound = config(*HUB, *overrides)
    here = Source("base", tmp_path / "none", "")
    return bound, bound.method, {"policy": here}, here


def test_llama_under_zero3_on_four_devices_by_hand(tmp_path):
    """8.03B × 16 bytes / 4; ZeRO-3 holds 1e9 weights at hand; one row of 512 tokens, all layers kept."""
    found = memory_fit.memory_fit(*sized(tmp_path, "hardware=zero3", *FOUR, SHORT))
    assert {role.name: role.size for role in found.roles} == {"policy": 4 * LLAMA, "gathered layers": 2 * 10**9}
    inner = 3 * 4096 + 3 * 1024 + 4 * 14336
    assert found.activations == 32 * 512 * (4 * 4096 * 4 + inner * 2) + LOGITS
    assert found.available is None
    assert str(found.step) == "4 devices × micro-batch 1 × accumulation 8 = 32 rows per step"


def test_ppo_gathers_the_policy_while_it_answers(tmp_path):
    """Policy and value learn (16 bytes / 4 each); the reference is partitioned, the reward model whole.

    While it measures, each device holds policy and reference in 2 bytes per weight.
    """
    bound, _, inputs, here = sized(tmp_path, "method=ppo", "hardware=zero3", *FOUR)
    found = memory_fit.memory_fit(bound, bound.method, inputs | {"reward_model": here}, here)
    assert {role.name: role.size for role in found.roles} == {
        "policy": 4 * LLAMA, "value": 4 * BODY, "reference": LLAMA // 2, "reward model": 2 * LLAMA,
        "gathered weights": 2 * 2 * LLAMA,
    }  # fmt: skip


def test_recomputing_keeps_the_input_of_each_layer_and_one_layer(tmp_path):
    lean = memory_fit.memory_fit(
        *sized(tmp_path, "hardware=zero3", *FOUR, SHORT, "method.activation_checkpointing=true")
    )
    layer = 4 * 4096 * 4 + (3 * 4096 + 3 * 1024 + 4 * 14336) * 2
    assert lean.activations == 512 * (32 * 4096 * 2 + layer) + LOGITS


def test_a_stage_that_does_not_fit_is_told_what_to_do(tmp_path):
    zero3 = memory_advice.advice(*sized(tmp_path, "hardware=ddp", *FOUR, "hardware.memory_gb=80"))
    assert zero3 == "does not fit; try hardware=zero3, or model/adapter=lora, or hardware=zero3_offload"
    rows = ["hardware=zero3", SHORT, "hardware.processes=4", "hardware.micro_batch_size=8", "hardware.memory_gb=56"]
    fewer = memory_advice.advice(*sized(tmp_path, *rows))
    assert fewer.startswith("does not fit; try hardware.micro_batch_size=4, or method.activation_checkpointing=true")
    assert memory_advice.advice(*sized(tmp_path, "hardware=zero3", *FOUR, "hardware.memory_gb=80")) == ""
    assert "or a smaller model" in memory_advice.advice(*sized(tmp_path, "hardware.memory_gb=1"))


def test_states_that_cannot_fit_stop_a_run_before_anything_is_loaded(tmp_path):
    with pytest.raises(
        Failure, match=r"hardware: sft needs 145 GB on each device, which has 80.0 GB; does not fit; try"
    ):
        raise memory_advice.check(*sized(tmp_path, "hardware.memory_gb=80"))  # type: ignore[misc]
    assert memory_advice.check(*sized(tmp_path, "hardware.memory_gb=200")) is None


NAMED = [file.stem for file in (ROOT / "conf" / "model").glob("[a-z]*.yaml") if "\nshape: {" in file.read_text()]


@pytest.mark.parametrize("name", NAMED)
def test_the_widths_of_a_model_make_its_parameters(name):
    """Norms and biases are left out, and the head may be the embedding: within a percent of one or the other."""
    model = config(f"model={name}", *HUB[1:3]).model
    shape = memory_fit.read_shape(model.shape.model_dump())
    assert model_size.parameters(model_size.tied_to(shape, model.parameters)) / model.parameters == pytest.approx(
        1, abs=0.01
    )


def test_every_published_decoder_has_its_widths():
    assert {"llama31_8b", "mistral_7b", "pythia_28b", "qwen25_05b", "smollm2_135m"} <= set(NAMED)


def test_words_of_time():
    said = [time_estimate.in_words(seconds) for seconds in (42, 99.4, 600, 3600, 12_000, 172_800)]
    assert said == ["42 s", "99 s", "10 min", "1 h 0 min", "3 h 20 min", "2 days"]


def test_time_is_given_or_measured_or_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    bound = config(*HUB)
    assert time_estimate.describe(bound, bound.method, 60_000).startswith(
        "time: unknown; set hardware.tokens_per_second"
    )
    given = config(*HUB, "hardware.tokens_per_second=100")
    assert time_estimate.describe(given, given.method, 60_000) == "time: about 10 min (100 tokens per second, as set)"
    for name, model, tokens in (("sft-a", bound, 3000), ("sft-b", config(*HUB[1:], "model=mistral_7b"), 9000)):
        (tmp_path / "stages" / name).mkdir(parents=True)
        facts = {"config": model.model_dump(mode="json"), "tokens": tokens, "seconds": 10.0}
        (tmp_path / "stages" / name / "provenance.json").write_text(json.dumps(facts))
    (tmp_path / "stages" / "sft-c").mkdir()
    (tmp_path / "stages" / "sft-c" / "provenance.json").write_text("{damaged")  # which no run here needs
    said = time_estimate.describe(bound, bound.method, 60_000)
    assert said == "time: about 3 min (300 tokens per second, measured in an earlier run)"
    (tmp_path / "stages" / "sft-a" / "metrics.jsonl").write_text('{"step": 2, "train/seconds": 5.0}\n')
    said = time_estimate.describe(bound, bound.method, 60_000)
    assert said == "time: about 2 min (600 tokens per second, measured in an earlier run, 2 steps long)"
    assert time_estimate.describe(bound, bound.method, None) == "time: unknown"


@pytest.mark.runs
def test_the_plan_of_a_recipe_whose_data_and_model_are_elsewhere(tmp_path):
    more = ["hardware=zero3", "hardware.processes=4", "hardware.tokens_per_second=12000", "hardware.memory_gb=80"]
    done = alignlab("experiment=llama31_8b_hh_sft", *more, "dry_run=true", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    for said in (
        "152,760 rows, 4,774 steps, about 61.1M tokens",  # 160,800 less 5%; 2 epochs of 2,387 steps of 64
        "4 devices × micro-batch 16 × accumulation 1 = 64 rows per step",
        "policy 32.1 GB, gathered layers 2.0 GB, activations up to 15.7 GB = 49.8 GB of 80.0 GB",
        "time: about 1 h 25 min (12,000 tokens per second, as set)",  # 61.1M / 12,000 = 5,092 s
    ):
        assert said in done.stdout


def test_a_plan_checks_every_stage_that_is_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    made = plan.make(config(*HUB, "method=dpo", "hardware.memory_gb=150"))
    with pytest.raises(Failure, match=r"dpo needs 161 GB on each device, which has 150 GB"):  # 8.03B × (16 + 4) bytes
        plan.check_memory(made)
