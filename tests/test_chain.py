"""The main job on the small world, by the real command: what it leaves, what it reuses, what it repeats and resumes."""

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import alignlab, config

from alignlab.pipeline.launch import launch

pytestmark = pytest.mark.runs

SMALL = ["method=dpo", "model=pocket_small", "dataset=pocket_small", "evaluation=quick", "tracking=jsonl"]
QUICK = [*SMALL, "evaluation=none"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("chain")


@pytest.fixture(scope="module")
def main_job(place):
    done = alignlab(*SMALL, folder=place)
    assert done.returncode == 0, done.stderr
    return done


def latest(place: Path) -> Path:
    return (place / "outputs" / "latest").resolve()


def weights(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def stages_of(stdout: str) -> dict[str, str]:
    """What the printed plan says of each stage: run or reuse."""
    words = [line.split() for line in stdout.splitlines()]
    return {line[0]: line[1] for line in words if len(line) > 2 and line[1] in {"run", "reuse"}}


def test_the_plan_comes_first_and_the_report_last(main_job, place):
    lines = main_job.stdout.splitlines()
    assert lines[0].startswith("plan: dpo on pocket")
    assert stages_of(main_job.stdout)["dpo"] == "run"
    assert Path(lines[-1]) == latest(place) / "report.html"
    assert Path(lines[-1]).exists()
    assert "Traceback" not in main_job.stderr


def test_a_result_has_the_shape_that_programs_read(main_job, place):
    result = json.loads((latest(place) / "result.json").read_text())
    assert result == json.loads((latest(place) / "dpo" / "result.json").read_text())
    assert (result["stage"], result["seed"]) == ("dpo", 0)
    rows = {row["name"]: row for row in result["measurements"]}
    assert set(rows) >= {
        "gold/harmful_compliance",
        "gold/score",
        "gold/helpful",
        "gold/honest",
        "gold/over_refusal",
        "eval/perplexity",
        "length/mean",
    }
    row = rows["gold/harmful_compliance"]
    assert row["low"] <= row["value"] <= row["high"]
    for other in ("before", "previous"):
        assert row[other]["low"] <= row[other]["value"] <= row[other]["high"]
        change = row["difference"][other]
        assert change["value"] == pytest.approx(row["value"] - row[other]["value"])
        assert change["low"] <= change["value"] <= change["high"]
    assert Path(result["model"]).exists()
    assert result["seconds"] > 0


def test_what_one_stage_ends_with_the_next_begins_with(main_job, place):
    sft, dpo = (json.loads((latest(place) / name / "result.json").read_text()) for name in ("sft", "dpo"))
    ended = {row["name"]: row["value"] for row in sft["measurements"]}
    began = {row["name"]: row["previous"]["value"] for row in dpo["measurements"] if "previous" in row}
    assert ended.pop("eval/kl") > 0  # how far a stage went from the model before it is of that stage alone
    assert ended == began


def test_everything_that_a_result_stands_on_is_written_down(main_job, place):
    facts = json.loads((latest(place) / "dpo" / "provenance.json").read_text())
    assert set(facts) >= {"config", "packages", "git", "seed", "data", "sources", "threads", "fingerprint", "inputs"}
    assert facts["packages"]["torch"].startswith("2.")


def test_the_same_command_trains_nothing_twice(main_job, place):
    again = alignlab(*SMALL, folder=place)
    assert stages_of(again.stdout) == {"base": "reuse", "sft": "reuse", "dpo": "reuse"}
    said = json.loads((latest(place) / "result.json").read_text())["measurements"]
    first = next(p for p in sorted((place / "outputs").glob("*/*")) if (p / "result.json").exists())
    assert json.loads((first / "result.json").read_text())["measurements"] == said


def test_the_saved_config_repeats_the_run_bit_for_bit(main_job, place, tmp_path, monkeypatch):
    run = latest(place)
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copytree(Path(os.environ["ALIGNLAB_CACHE"]) / "pocket", cache / "pocket")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(cache))
    again = alignlab(f"experiment={run / 'config.yaml'}", "evaluation.enabled=false", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert stages_of(again.stdout) == {"base": "reuse", "sft": "run", "dpo": "run"}
    for stage in ("sft", "dpo"):
        assert weights(latest(tmp_path) / stage) == weights(run / stage)


def test_a_killed_stage_goes_on_from_its_checkpoint_and_ends_the_same(main_job, place, tmp_path):
    """The first stage is reused; the second, killed on its way, ends with the weights of an undisturbed run."""
    saving = [*QUICK, "method.save_steps=4", "method.save_total_limit=3"]
    cache = Path(os.environ["ALIGNLAB_CACHE"]) / "stages"
    undisturbed = weights(latest(place) / "dpo")
    whole = next(path for path in cache.glob("dpo-*") if path.is_dir() and weights(path) == undisturbed)
    shutil.rmtree(whole)  # save_steps is not part of what a stage is: the same fingerprint is trained again
    command = [sys.executable, "-m", "alignlab", *saving]
    job = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not list(cache.glob("dpo-*.partial/checkpoints/*/whole.json")):
            assert time.monotonic() < deadline
            assert job.poll() is None
            time.sleep(0.05)
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()
    assert not whole.exists()
    done = alignlab(*saving, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resumes from its last checkpoint" in done.stdout
    assert stages_of(done.stdout) == {"base": "reuse", "sft": "reuse", "dpo": "run"}
    assert weights(whole) == undisturbed


def test_a_disk_that_fills_up_is_one_sentence_and_no_finished_stage(main_job, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        shutil.copytree(Path(os.environ["ALIGNLAB_CACHE"]) / "pocket", disk / "pocket")
        monkeypatch.setenv("ALIGNLAB_CACHE", str(disk))
        (disk / "filler").write_bytes(b"0" * (shutil.disk_usage(disk).free - 100_000))
        done = alignlab(*QUICK, "method=sft", folder=tmp_path)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].endswith("free some, or set ALIGNLAB_CACHE to a larger disk")
        assert "Traceback" not in done.stderr
        assert not [path for path in (disk / "stages").glob("sft-*") if path.suffix not in {".lock", ".partial"}]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def curves(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run(folder: Path, *overrides: str) -> Path:
    """A run in this process, which has its imports already."""
    launch(config(*QUICK, *overrides), folder)
    return folder


def test_the_loss_of_dpo_begins_at_log_2(main_job, tmp_path):
    """Policy and reference are the same at the first step, so every margin is 0."""
    done = run(tmp_path / "run", "method.nll_weight=0", "method.max_steps=2", "method.logging_steps=1")
    first = curves(done / "dpo")[0]
    assert first["train/loss"] == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_an_adapter_starts_at_the_model_and_is_saved_whole(main_job, tmp_path, method):
    import torch
    from transformers import AutoModelForCausalLM

    wanted = ["model/adapter=lora", f"method={method}", "method.max_steps=3", "method.logging_steps=1"]
    more = ["stages.sft.max_steps=3", "method.nll_weight=0"] if method == "dpo" else []
    done = run(tmp_path / "run", *wanted, *more)
    if method == "dpo":  # the adapter turned off is the reference: the SFT model itself
        assert curves(done / "dpo")[0]["train/loss"] == pytest.approx(math.log(2), abs=1e-4)
    from peft import PeftModel

    source = latest_source(done, method)
    merged = AutoModelForCausalLM.from_pretrained(done / method / "model")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(source), done / method / "adapter")
    ids = torch.arange(8, 40).unsqueeze(0)
    with torch.no_grad():
        assert torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-4)
        with adapted.disable_adapter():
            assert not torch.allclose(merged(ids).logits, adapted(ids).logits, atol=1e-4)


def latest_source(folder: Path, method: str) -> str:
    return json.loads((folder / method / "provenance.json").read_text())["inputs"]["policy"]["path"]


def test_packing_and_early_stopping_and_the_best_checkpoint(main_job, tmp_path):
    best = ["method.eval_steps=2", "method.save_steps=2", "method.load_best_model_at_end=true"]
    stop = ["method.early_stopping_patience=1", "method.learning_rate=0.05", "method.num_train_epochs=30"]
    done = run(tmp_path / "run", "method=sft", *best, *stop, "method.batch_size=64", "method.packing=true")
    steps = [point["step"] for point in curves(done / "sft") if "eval/loss" in point]
    losses = [point["eval/loss"] for point in curves(done / "sft") if "eval/loss" in point]
    assert losses[-1] > min(losses)  # it stopped because it got worse
    assert steps[-1] <= 10


def test_one_step_is_the_same_in_one_piece_and_in_four(main_job, tmp_path):
    import torch
    from safetensors.torch import load_file

    one, four = (
        run(
            tmp_path / size,
            "method=sft",
            "method.max_steps=3",
            "method.batch_size=16",
            *(f"hardware.micro_batch_size={size}",),
        )
        for size in ("16", "4")
    )
    first, second = (load_file(folder / "sft" / "model" / "model.safetensors") for folder in (one, four))
    assert all(torch.allclose(first[name], second[name], atol=2e-5) for name in first)


def test_a_sweep_ends_with_one_table(main_job, place, tmp_path):
    done = alignlab(*SMALL, "method=sft", "seed=0,1", "-m", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "multirun").glob("sft-*")
    assert [json.loads((folder / str(n) / "result.json").read_text())["seed"] for n in (0, 1)] == [0, 1]
    assert done.stdout.splitlines()[-2:] == [str(folder / "sweep.html"), str(folder / "sweep.md")]
    assert "gold/harmful_compliance" in done.stdout
    again = alignlab(*SMALL, "method=sft", "seed=0,1", "-m", folder=tmp_path)
    assert (again.returncode, again.stderr.count("run 0")) == (0, 0), again.stderr
    assert f"2 runs in {folder}, 2 finished already" in again.stderr
    assert again.stdout == done.stdout[-len(again.stdout) :]


def test_a_finished_model_is_evaluated_and_reported_again(main_job, place):
    model = latest(place) / "dpo"
    done = alignlab(*SMALL, "task=evaluate", f"task.model={model}", folder=place)
    assert done.returncode == 0, done.stderr
    left = {file.name for file in (latest(place) / "evaluate").iterdir()}
    assert left >= {"result.json", "samples.jsonl", "records.jsonl", "provenance.json", "tables.jsonl"}
    assert (latest(place) / "config.yaml").exists()
    report = alignlab("task=report", "task.run=outputs/latest", folder=place)
    assert report.returncode == 0, report.stderr
    assert report.stdout.splitlines()[-1].endswith("report.html")
