"""Stages whose dtypes are measured, and what the config promises of them."""

import json
from pathlib import Path

import pytest
from several import job

from alignlab.config.hardware import Hardware
from alignlab.pipeline import memory_per_role
from alignlab.runtime.run_files import PRECISION, PrecisionRecord

SHORT = ["method.batch_size=4", "method.max_steps=2", "method.learning_rate=1e-3"]
METHODS = {
    "sft": ["method=sft", *SHORT],
    "rm": ["method=rm", *SHORT],
    "rm_last": ["method=rm", "method.head=last", *SHORT],
    "cost": ["method=cost", "dataset.validation=0.15", "dataset.label_pairs=true", *SHORT],
    "dpo": ["method=dpo", *SHORT],
    "kto": ["method=kto", "dataset.label_pairs=true", *SHORT],
    "ppo": [
        "method=ppo", "reward=function", "reward.function=several:words", "method.batch_size=4",
        "method.total_episodes=8", "method.num_mini_batches=2", "method.num_ppo_epochs=1", "method.max_new_tokens=6",
        "method.gates.min_finished=0", "method.gates.during=off", "method.learning_rate=1e-3",
        "method.value=separate",
    ],
    "grpo": [
        "method=grpo", "reward=function", "reward.function=several:words", "method.batch_size=4",
        "method.total_episodes=8", "method.num_mini_batches=2", "method.num_ppo_epochs=1", "method.max_new_tokens=6",
        "method.gates.min_finished=0", "method.gates.during=off", "method.learning_rate=1e-3", "method.group_size=2",
    ],
}  # fmt: skip
ADAPTERS = {"full": [], "lora": ["model/adapter=lora", "model.adapter.r=1"]}
PHASES = {
    "sft": {"update"}, "rm": {"update"}, "rm_last": {"update"}, "dpo": {"update", "reference"},
    "ppo": {"update", "rollout", "measuring", "reference"}, "cost": {"update"},
    "kto": {"update", "measuring", "reference"},
    "grpo": {"update", "rollout", "measuring", "reference"},
}  # fmt: skip


def measured_job(rows: Path, folder: Path, method: str, adapter: str, hardware: str, dtype: str):
    place = folder / dtype / hardware / adapter / method
    return job(rows, place, hardware, f"hardware.dtype={dtype}", *METHODS[method], *ADAPTERS[adapter])


def check(stage, method: str, adapter: str, dtype: str) -> None:
    """Compare the record of a stage with its config."""
    record: PrecisionRecord = json.loads((stage.folder / PRECISION).read_text())
    deepspeed = stage.config.hardware.deepspeed is not None
    assert record["master_weights"].keys() == record["moments"].keys() == {"float32"}
    phases = PHASES[method]
    if adapter == "lora" and "reference" in phases:  # the policy with its adapter off
        phases = (phases - {"reference"}) | {"measuring"}
    assert record["matmuls"].keys() == phases, record["matmuls"]
    for counts in record["matmuls"].values():
        assert counts[dtype] > 0.7 * sum(counts.values())  # adapters and the value head may compute in float32
    if adapter == "lora":
        assert record["frozen"].keys() == {dtype}
    if dtype == "float32" or deepspeed or (adapter == "full" and method != "ppo"):
        assert record["weights"].keys() == {dtype}
        assert all(counts.keys() == {dtype} for counts in record["matmuls"].values())
    elif adapter == "lora" and method in {"sft", "dpo", "kto", "ppo", "grpo"}:  # adapters, and PPO's value head
        assert "float32" in record["weights"]
    if stage.config.hardware.strategy == "single":
        assert record["gradients"].keys() == {"float32"}
    elif adapter == "full" and method != "ppo":
        assert record["gradients"].keys() == {dtype}
    check_optimizer(record, stage.config.hardware, adapter)


def check_optimizer(record: PrecisionRecord, hardware: Hardware, adapter: str) -> None:
    """Compare the bytes of the optimizer's state on the first process with the plan's, but for padding and the head."""
    planned = memory_per_role.bytes_per_parameter(hardware, adapter == "lora").optimizer
    masters = sum(record["master_weights"].values()) if planned == 12 else 0  # else they are the weights themselves
    devices = 2 if hardware.strategy_record.shards_optimizer else 1
    expected = planned * sum(record["weights"].values()) / devices
    assert 4 * (masters + sum(record["moments"].values())) == pytest.approx(expected, rel=0.05)
