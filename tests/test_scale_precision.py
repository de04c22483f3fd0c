"""One precision per run in several processes: dtypes as measured, the first ratio and the first KL in bfloat16."""

import pytest
import torch
from precision import ADAPTERS, METHODS, check, measured_job
from safetensors.torch import load_file
from several import in_two, lines, write_rows

pytestmark = pytest.mark.scale

HARDWARE = ("ddp", "zero2", "zero3")
STAGES = [
    (method, adapter, hardware)
    for hardware in HARDWARE
    for method in METHODS
    for adapter in ADAPTERS
    if method != "rm_last" or adapter == "full"
]


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """Every stage in bfloat16 on every hardware, trained; by names."""
    folder = tmp_path_factory.mktemp("precision")
    rows = write_rows(folder / "rows.jsonl")
    jobs = {
        (method, adapter, hardware): measured_job(rows, folder, method, adapter, hardware, "bfloat16")
        for method, adapter, hardware in STAGES
    }
    in_two(list(jobs.values()))
    return jobs


@pytest.mark.parametrize(("method", "adapter", "hardware"), STAGES)
def test_several_processes_compute_in_the_precision_of_the_config(stages, method, adapter, hardware):
    stage = stages[method, adapter, hardware]
    check(stage, method, adapter, "bfloat16")
    saved = load_file(stage.folder / "model" / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in saved.values())


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("hardware", HARDWARE)
def test_ppo_begins_with_ratio_one_and_kl_zero(stages, adapter, hardware):
    rollout = next(line for line in lines(stages["ppo", adapter, hardware]) if "policy/first_ratio" in line)
    assert rollout["policy/first_ratio"] == pytest.approx(1, abs=1e-6)
    assert rollout["policy/kl_exact"] == pytest.approx(0, abs=1e-6)
