"""Trackers, read back with their own tools; starts that wait for nobody; Trainer's metrics under our names."""

import io
import json
import math
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignlab.config.tracking import Tracking
from alignlab.errors import Failure, Mistake
from alignlab.runtime import progress as progress_module
from alignlab.runtime.progress import progress
from alignlab.runtime.tracking import JsonlTracker, Trackers, is_reachable, open_tracker
from alignlab.runtime.wandb_tracker import has_key
from alignlab.training.callbacks import TrackerCallback, our_name, throughput


def config(*to: str, **changes: Any) -> Any:
    """As much of a Config as a tracker reads."""
    tracking = Tracking(
        to=to, mode="offline", project="test", entity=None, name=None, tags=("a tag",), upload=False, mlflow_uri=None
    ).model_copy(update=changes)
    return SimpleNamespace(tracking=tracking, seed=3, model_dump=lambda mode: {"seed": 3, "method": {"beta": 0.1}})


def log_three_steps(tracker: Any) -> None:
    for step, loss in ((10, 2.0), (20, 1.0), (30, 0.5)):
        tracker.log({"train/loss": loss, "reward/margin": -loss}, step)
    tracker.table("samples", ["prompt", "answer"], [["how?", "<b>|so"]])
    tracker.summary({"gold/score": 0.75})
    tracker.close()


def test_jsonl_is_always_written(tmp_path: Path) -> None:
    log_three_steps(open_tracker(config(), "sft", tmp_path))
    lines = (tmp_path / "sft" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": step, "train/loss": loss, "reward/margin": -loss} for step, loss in ((10, 2.0), (20, 1.0), (30, 0.5))
    ]
    table = json.loads((tmp_path / "sft" / "tables.jsonl").read_text())
    assert table == {"name": "samples", "columns": ["prompt", "answer"], "rows": [["how?", "<b>|so"]]}


def test_a_resumed_stage_goes_on_in_the_same_file_and_not_a_number_is_null(tmp_path: Path) -> None:
    for step, loss in ((1, math.nan), (2, math.inf), (3, 1.5)):
        JsonlTracker(tmp_path / "metrics.jsonl").log({"train/loss": loss}, step)
    found = [json.loads(line)["train/loss"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert found == [None, None, 1.5]


def test_a_resumed_stage_keeps_one_history(tmp_path: Path) -> None:
    """Steps 1 to 5 were logged, the last line was cut short, and the checkpoint is of step 2."""
    file = tmp_path / "metrics.jsonl"
    first = JsonlTracker(file)
    for step in range(1, 6):
        first.log({"train/loss": 1.0}, step)
    with file.open("a") as stream:
        stream.write('{"step": 6, "trai')
    resumed = JsonlTracker(file)
    for step in (3, 4, 4):
        resumed.log({"train/loss": 2.0}, step)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["step"], line["train/loss"]) for line in lines] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (4, 2.0)]


def test_a_full_disk_is_one_clear_failure() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(Failure, match="no space left"):
        JsonlTracker(Path("/dev/full")).log({"train/loss": 1.0}, 1)


def test_wandb_offline_reads_back(tmp_path: Path) -> None:
    log_three_steps(open_tracker(config("wandb"), "dpo", tmp_path / "run"))
    (run,) = (tmp_path / "run" / "dpo" / "wandb").glob("offline-run-*")
    tool = Path(sys.executable).with_name("wandb")
    printed = subprocess.run([tool, "leet", "inspect", "--json", run], capture_output=True, text=True, check=True)
    records = [json.loads(line) for line in printed.stdout.splitlines()]
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    losses = {item["_step"]: item["train/loss"] for item in history if "train/loss" in item}
    assert losses == {10: 2.0, 20: 1.0, 30: 0.5}
    (described,) = [record["run"] for record in records if record["type"] == "run"]
    assert described["project"] == "test"
    updates = [record["summary"]["update"] for record in records if record["type"] == "summary"]
    assert any(update.get("gold/score") == 0.75 for update in updates)


def test_tensorboard_reads_back(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_three_steps(open_tracker(config("tensorboard"), "rm", tmp_path))
    events = EventAccumulator(str(tmp_path / "rm" / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(10, 2.0), (20, 1.0), (30, 0.5)]
    assert events.Scalars("summary/gold/score")[0].value == 0.75


def test_several_trackers_at_once_get_the_same(tmp_path: Path) -> None:
    tracker = open_tracker(config("tensorboard", "wandb"), "sft", tmp_path)
    assert isinstance(tracker, Trackers)
    log_three_steps(tracker)
    assert {path.name for path in (tmp_path / "sft").iterdir()} >= {"metrics.jsonl", "tensorboard", "wandb"}


def test_mlflow_reads_back_or_is_missed_in_one_sentence(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/deep/mlflow.db"
    try:
        import mlflow
    except ModuleNotFoundError:
        with pytest.raises(Mistake, match="mlflow is not installed; run pip install"):
            open_tracker(config("mlflow", mlflow_uri=uri), "sft", tmp_path)
        return
    log_three_steps(open_tracker(config("mlflow", mlflow_uri=uri), "sft", tmp_path / "run"))
    client = mlflow.MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("test").experiment_id])
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")] == [
        (10, 2.0), (20, 1.0), (30, 0.5)
    ]  # fmt: skip
    assert run.data.params["method.beta"] == "0.1"
    assert run.info.artifact_uri.startswith((tmp_path / "deep").as_uri())  # and not in whatever folder we are in


def broken(*_: Any) -> None:
    raise ConnectionResetError("Connection lost\nin two lines")


@pytest.mark.parametrize("method", ["log", "table", "summary", "close", "open_tracker"])
def test_a_tracker_that_fails_is_reported_once_and_left_out(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from alignlab.runtime import tensorboard_tracker

    owner = tensorboard_tracker if method == "open_tracker" else tensorboard_tracker.TensorboardTracker
    monkeypatch.setattr(owner, method, broken)
    log_three_steps(open_tracker(config("tensorboard"), "sft", tmp_path))
    assert capsys.readouterr().err == (
        "tracking: tensorboard is left out from here: ConnectionResetError: Connection lost in two lines; "
        "metrics.jsonl is complete\n"
    )
    assert len((tmp_path / "sft" / "metrics.jsonl").read_text().splitlines()) == 3


@pytest.mark.runs
@pytest.mark.parametrize("trouble", ["killed", "a project that is none", "no program"])
def test_wandb_that_fails_ends_no_process(trouble: str, tmp_path: Path) -> None:
    """In a process of its own, whose end is looked at too: W&B's own hooks would print a traceback."""
    script = """
import os, signal, sys, psutil
sys.path.insert(0, sys.argv[2])
from pathlib import Path
import test_tracking as here
if sys.argv[3] == "no program":
    import wandb.sdk.lib.service.service_process as process
    process.get_core_path = lambda: "/nowhere/wandb-core"
project = "a/b" if "project" in sys.argv[3] else "test"
tracker = here.open_tracker(here.config("wandb", project=project), "sft", Path(sys.argv[1]))
tracker.log({"train/loss": 3.0}, 1)
if sys.argv[3] == "killed":
    for child in psutil.Process().children(recursive=True):
        child.kill()
        child.wait()
here.log_three_steps(tracker)
"""
    command = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent), trouble]
    own_service = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    environment = own_service | {"WANDB_MODE": "offline"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("tracking: wandb is left out from here: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert len((tmp_path / "sft" / "metrics.jsonl").read_text().splitlines()) == 4


def test_disabled_wandb_writes_the_jsonl_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    log_three_steps(open_tracker(config("wandb", mode="disabled"), "sft", tmp_path))
    assert not (tmp_path / "sft" / "wandb").exists()


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.runs
def test_an_online_start_waits_for_no_server(tmp_path: Path, silent_server: str) -> None:
    """In a process of its own, whose end is timed too: W&B itself would hold it up for half a minute."""
    script = """
import os, sys, time
from pathlib import Path
from alignlab.config.compose import compose
from alignlab.runtime.tracking import open_tracker
import wandb
for stage, mode, key in (("a", "offline", ""), ("b", "online", ""), ("c", "online", "0" * 40)):
    os.environ["WANDB_API_KEY"] = key
    settings = ("model=pocket_small", "dataset=pocket_small", "method=sft", "tracking.project=test")
    config = compose(*settings, "tracking=wandb", f"tracking.mode={mode}")
    started = time.monotonic()
    tracker = open_tracker(config, stage, Path(sys.argv[1]))
    print(time.monotonic() - started)
    tracker.log({"train/loss": 1.0}, 1)
    tracker.close()
print(time.monotonic(), flush=True)
"""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "WANDB_BASE_URL": silent_server}
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=90)
    offline, keyless, unheard, end = map(float, done.stdout.split())
    assert keyless - offline < 1
    assert unheard - offline < 4  # what a silent server costs; the rest is the start of W&B's own process
    assert time.monotonic() - end < 8
    said = [line for line in done.stderr.splitlines() if line.startswith("tracking:")]
    assert ["no key is there" in line for line in said] == [True, False]
    assert ["does not answer" in line for line in said] == [False, True]
    assert all(list((tmp_path / stage / "wandb").glob("offline-run-*")) for stage in "abc")


def test_a_key_is_found_in_the_environment_or_in_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not has_key("https://tracking.example")
    (tmp_path / "netrc").write_text("machine tracking.example login user password 1234\n")
    assert has_key("https://tracking.example")
    assert not has_key("https://other.example")
    monkeypatch.setenv("WANDB_API_KEY", "1234")
    assert has_key("https://other.example")


def test_a_server_answers_if_it_says_anything(silent_server: str) -> None:
    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert is_reachable(f"http://127.0.0.1:{server.server_port}", 2)
        server.shutdown()
    assert not is_reachable(silent_server, 0.2)
    assert not is_reachable(f"http://127.0.0.1:{server.server_port}", 2)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("loss", "train/loss"),
        ("grad_norm", "train/grad_norm"),
        ("learning_rate", "train/learning_rate"),
        ("train_runtime", "train/seconds"),
        ("train_loss", "train/mean_loss"),
        ("total_flos", ""),
        ("eval_loss", "eval/loss"),
        ("eval_runtime", "eval/seconds"),
        ("rewards/margins", "reward/margin"),
        ("rewards/accuracies", "reward/accuracy"),
        ("rewards/chosen", "reward/chosen"),
        ("eval_rewards/margins", "eval/reward_margin"),
        ("logps/chosen", "policy/logps_chosen"),
        ("eval_logps/rejected", "eval/policy_logps_rejected"),
        ("accuracy", "reward/accuracy"),
        ("eval_accuracy", "eval/reward_accuracy"),
        ("mean_reward", "reward/mean"),
        ("policy/kl", "policy/kl"),
    ],
)
def test_metrics_bear_our_names(theirs: str, ours: str) -> None:
    assert our_name(theirs) == ours


def test_a_trainers_logs_reach_the_tracker_and_logs_stay_quiet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A real Trainer on the tiny model: six steps, logged every two."""
    import torch
    from tiny import tiny_model
    from transformers import Trainer, TrainingArguments

    tracker = JsonlTracker(tmp_path / "metrics.jsonl")
    rows = [{"input_ids": torch.tensor([6, 7, 8, 2]), "labels": torch.tensor([6, 7, 8, 2])}] * 12
    arguments = TrainingArguments(
        str(tmp_path), max_steps=6, logging_steps=2, per_device_train_batch_size=2, use_cpu=True, report_to="none",
        disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = Trainer(tiny_model(), arguments, train_dataset=rows, callbacks=[TrackerCallback(tracker, "sft")])
    trainer.train()
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in found if "train/loss" in line] == [2, 4, 6]
    assert found[0]["train/loss"] > found[2]["train/loss"]
    assert all("/" in name for line in found for name in line if name != "step")
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("sft:")] == said[:1] + said[-1:]
    assert said[0] == "sft: 6 steps"


def test_a_terminal_gets_a_bar_with_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(progress_module, "BAR_DELAY", 0.0)
    with progress(4, "sampling", "completions") as advance:
        for _ in range(2):
            time.sleep(0.12)
            advance(1)
        shown = screen.getvalue()
    assert "sampling" in shown
    assert re.search(r"2/4 \[00:00<00:0\d", shown)  # done, time taken, time left
    assert screen.getvalue().endswith("sampling: 4 completions in 0 s\n")  # the bar is gone, the line stays


def test_short_work_is_not_mentioned_and_long_work_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress(3, "reading", "rows") as advance:
        advance(3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress_module, "BAR_DELAY", 0.0)
    with progress(1200, "reading", "rows") as advance:
        advance(1200)
    assert capsys.readouterr().err == "reading: 1,200 rows in 0 s\n"


def test_tokens_a_second_are_those_between_the_first_log_and_the_last():
    """What is loaded and compiled before the first log is not counted; neither are tokens of an earlier session."""
    assert list(throughput([(10.0, 5_000.0), (11.0, 7_000.0), (14.0, 13_000.0)]))[:1] == ["2,000 tokens a second"]
    assert not any("tokens" in told for told in throughput([(10.0, 5_000.0)]))


def test_a_log_gets_a_line_of_progress_every_thirty_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """100 steps of one second each: lines at 30, 60 and 90 s."""
    clock = iter(range(1000))
    monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    bar = progress_module.progress_bar(100, "sft")
    bar.set_postfix_str("loss 1.234")
    for _ in range(100):
        bar.update(1)
    assert capsys.readouterr().err.splitlines() == [
        "sft: 30 of 100, about 70 s left, loss 1.234",
        "sft: 60 of 100, about 40 s left, loss 1.234",
        "sft: 90 of 100, about 10 s left, loss 1.234",
    ]
