"""Stages whose dtypes are measured, and what the config promises of them."""

import json
from pathlib import Path

from several import job

from alignlab.runtime.run_files import PRECISION, PrecisionRecord

SHORT = ["method.batch_size=4", "method.max_steps=2", "method.learning_rate=1e-3"]
METHODS = {
    "sft": ["method=sft", *SHORT],
    "rm": ["method=rm", *SHORT],
    "rm_last": ["method=rm", "method.head=last", *SHORT],
    "dpo": ["method=dpo", *SHORT],
    "ppo": [
        "method=ppo", "reward=function", "reward.function=several:words", "method.batch_size=4",
        "method.total_episodes=8", "method.num_mini_batches=2", "method.num_ppo_epochs=1", "method.max_new_tokens=6",
        "method.gates.min_finished=0", "method.gates.during=off", "method.learning_rate=1e-3",
        "method.value=separate",
    ],
}  # fmt: skip
ADAPTERS = {"full": [], "lora": ["model/adapter=lora", "model.adapter.r=1"]}
PHASES = {
    "sft": {"update"}, "rm": {"update"}, "rm_last": {"update"}, "dpo": {"update", "reference"},
    "ppo": {"update", "rollout", "measuring", "reference"},
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
    if adapter == "lora" and method in {"dpo", "ppo"}:  # the policy with its adapter off
        phases = (phases - {"reference"}) | {"measuring"}
    assert record["matmuls"].keys() == phases, record["matmuls"]
    for counts in record["matmuls"].values():
        assert counts[dtype] > 0.7 * sum(counts.values())  # adapters and the value head may compute in float32
    if adapter == "lora":
        assert record["frozen"].keys() == {dtype}
    if dtype == "float32" or deepspeed or (adapter == "full" and method != "ppo"):
        assert record["weights"].keys() == {dtype}
        assert all(counts.keys() == {dtype} for counts in record["matmuls"].values())
    elif adapter == "lora" and method in {"sft", "dpo", "ppo"}:  # adapters, and PPO's value head
        assert "float32" in record["weights"]
    if stage.config.hardware.strategy == "single":
        assert record["gradients"].keys() == {"float32"}
    elif adapter == "full" and method != "ppo":
        assert record["gradients"].keys() == {dtype}
