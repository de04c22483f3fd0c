"""One precision per run: what is measured during training is what the config promises."""

import json

import pytest
import torch
from command import alignlab
from precision import METHODS, check, measured_job
from running import PPO, WORDS, tiny
from safetensors.torch import load_file
from several import STOP, job, learn, lines, write_rows


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("precision") / "rows.jsonl")


AS_ANOTHER = {"cost", "grpo", "kto"}  # their trainers are those of rm, ppo and dpo
STAGES = [
    pytest.param(method, "lora", "bfloat16", marks=[pytest.mark.runs] if method in AS_ANOTHER else [])
    for method in METHODS
]
STAGES += [pytest.param(method, "full", "bfloat16", marks=pytest.mark.runs) for method in METHODS]
STAGES += [(method, "full", "float32") for method in ("sft", "ppo")]


@pytest.mark.parametrize(("method", "adapter", "dtype"), STAGES)
def test_one_process_computes_in_the_precision_of_the_config(rows, tmp_path, method, adapter, dtype):
    stage = measured_job(rows, tmp_path, method, adapter, "single", dtype)
    learn(stage)
    check(stage, method, adapter, dtype)


@pytest.mark.parametrize("more", [["method.value=shared"], ["method.value=adapter", "model/adapter=lora"]])
def test_ppo_begins_with_ratio_one_and_kl_zero_in_bfloat16(rows, tmp_path, more, monkeypatch):
    """Keys and values have one dtype in the cache."""
    from alignlab.models.decoding import PreallocatedLayer

    update, dtypes = PreallocatedLayer.update, set()

    def spy(self, keys, values, *rest, **options):
        dtypes.add((keys.dtype, values.dtype))
        return update(self, keys, values, *rest, **options)

    monkeypatch.setattr(PreallocatedLayer, "update", spy)
    stage = job(rows, tmp_path / "ppo", "single", "hardware.dtype=bfloat16", *METHODS["ppo"], *more)
    learn(stage)
    rollout = next(line for line in lines(stage) if "policy/first_ratio" in line)
    assert rollout["policy/first_ratio"] == pytest.approx(1, abs=1e-6)
    assert rollout["policy/kl_exact"] == pytest.approx(0, abs=1e-6)
    assert dtypes == {(torch.bfloat16, torch.bfloat16)}


@pytest.mark.parametrize("method", ["sft", "ppo"])
def test_a_stopped_stage_in_bfloat16_resumes_to_the_same_bits(rows, tmp_path, method):
    longer = {
        "sft": ["method.max_steps=12", "method.num_train_epochs=20"],
        "ppo": ["method.total_episodes=24"],  # two steps of two completions in each of six rollouts
    }[method]
    whole, stopped = (
        job(rows, tmp_path / name, "single", "hardware.dtype=bfloat16", *METHODS[method], *longer)
        for name in ("whole", "stopped")
    )
    (stopped.folder / "interrupt").touch()
    learn(whole)
    learn(stopped)
    assert (stopped.folder / "interrupted").exists()
    assert STOP in [line["step"] for line in lines(stopped)]
    first, second = (load_file(stage.folder / "model" / "model.safetensors") for stage in (whole, stopped))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.runs
def test_the_result_holds_the_measured_dtypes(place):
    done = alignlab(*tiny(*PPO, WORDS, "method.total_episodes=8", "hardware.dtype=bfloat16"), folder=place)
    assert done.returncode == 0, done.stderr
    result = json.loads((place / "outputs" / "latest" / "result.json").read_text())
    assert set(result["precision"]["matmuls"]["rollout"]) == {"bfloat16"}
    assert set(result["precision"]["master_weights"]) == {"float32"}
