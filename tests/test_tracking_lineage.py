"""What trackers hold at the end of a stage: tables by item, models and data with digests, groups, gates, pictures."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import write_run
from test_tracking import config

from alignlab.reports.figures import figures, reward_over_kl
from alignlab.runtime.run_files import SWEEP
from alignlab.runtime.tracking import InputModel, StageEnd, open_tracker, run_names

GATE: Any = {
    "step": 7, "gate": "kl", "stage": "dpo", "what": "the KL", "number": 19.04, "bound": "at most 15", "remedy": "x",
}  # fmt: skip


def model(folder: Path, content: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(content)
    return folder


def pictures() -> dict[str, Any]:
    return {"plots/measures": np.zeros((20, 30, 3), dtype=np.uint8)}


def track_chain(run: Path, *to: str, **changes: Any) -> None:
    """Track SFT, then DPO from a copy of its model; the table of DPO grows once."""
    started: dict[str, InputModel] = {}
    for stage, weights in (("sft", b"first"), ("dpo", b"second")):
        tracker = open_tracker(config(*to, **changes), stage, run)
        columns, row = ["id", "kind", "prompt", "after", "gold/score"], ["fact-1", "fact", "how?", "so", 0.5]
        tracker.table("completions", columns, [row])
        tracker.table("completions", columns, [["fact-2", *row[1:]]])
        made = model(run / stage / "model", weights)
        tracker.end(StageEnd(made, f"mark-{stage}", started, "data-abc", [GATE] * (stage == "dpo"), pictures))
        tracker.close()
        started = {"policy": InputModel("sft", model(run / "cache" / stage, weights), "mark-sft")}


def test_runs_of_a_sweep_are_named_by_their_number_and_form_one_group(tmp_path: Path) -> None:
    run = tmp_path / "seeds-1a2b" / "3"
    run.mkdir(parents=True)
    assert run_names(config(), run) == ("3", "3")
    (run.parent / SWEEP).touch()
    assert run_names(config(), run) == ("seeds-1a2b-3", "seeds-1a2b")
    assert run_names(config(name="mine"), run) == ("mine-3", "mine")


@pytest.mark.runs
def test_an_offline_wandb_run_is_read_back(tmp_path: Path) -> None:
    track_chain(tmp_path / "run", "wandb")
    tool = Path(sys.executable).with_name("wandb")
    logged: dict[str, dict[str, Any]] = {}
    for stage in ("sft", "dpo"):
        (run,) = (tmp_path / "run" / stage / "wandb").glob("offline-run-*")
        printed = subprocess.run([tool, "leet", "inspect", "--json", run], capture_output=True, text=True, check=True)
        records = [json.loads(line) for line in printed.stdout.splitlines()]
        described = next(record["run"] for record in records if record["type"] == "run")
        assert (described["run_group"], described["job_type"]) == ("run", stage)
        assert described["tags"] == ["a tag", "seed 3"]
        tables = sorted((run / "files" / "media" / "table").glob("completions_*.json"), key=lambda file: file.name)
        assert [json.loads(file.read_text())["data"][0][0] for file in tables] == ["fact-1", "fact-2"]
        artifacts = [record["artifact"] for record in records if record["type"] == "artifact"]
        logged |= {artifact["name"]: artifact for artifact in artifacts if artifact["type"] != "wandb-run-incremental"}
        alerts = [record["alert"]["text"] for record in records if record["type"] == "alert"]
        assert list((run / "files" / "media" / "images" / "plots").glob("measures_*.png"))
    assert alerts == ["dpo, step 7: the KL is 19 and must be at most 15"]
    first, second = logged["model-sft"], logged["model-dpo"]
    assert set(second["aliases"]) == {"latest", "mark-dpo"}
    facts = json.loads(second["metadata"])
    policy = {"artifact": "model-sft", "digest": first["digest"], "fingerprint": "mark-sft"}
    assert facts["inputs"]["policy"] == policy  # the digest of a copy is that of the model itself
    assert facts["data"]["digest"] == logged["data"]["digest"]
    assert second["digest"] != first["digest"]


def test_tensorboard_holds_pictures_and_gates(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track_chain(tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path / "dpo" / "tensorboard")).Reload()
    assert (events.Images("plots/measures")[0].width, events.Images("plots/measures")[0].height) == (30, 20)
    (gate,) = events.Tensors("gates/kl/text_summary")
    assert (gate.step, gate.tensor_proto.string_val[0]) == (7, b"the KL is 19 and must be at most 15")


@pytest.mark.runs
def test_mlflow_holds_models_data_and_traces(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    track_chain(tmp_path / "run", "mlflow", mlflow_uri=uri)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("test").experiment_id
    runs = {run.data.tags["stage"]: run for run in client.search_runs([experiment])}
    models = {one.name: one for one in client.search_logged_models([experiment])}
    dpo = client.get_run(runs["dpo"].info.run_id)
    assert dpo.inputs.dataset_inputs[0].dataset.digest == "data-abc"
    assert [one.model_id for one in dpo.inputs.model_inputs] == [models["model-sft"].model_id]
    assert [one.model_id for one in dpo.outputs.model_outputs] == [models["model-dpo"].model_id]
    assert models["model-dpo"].params == {"policy": "mark-sft"}
    assert dpo.data.tags["gates"] == "kl"
    assert dpo.data.tags["group"] == "run"
    traces = client.search_traces(locations=[experiment], run_id=dpo.info.run_id)
    assert sorted(trace.info.tags["item"] for trace in traces) == ["fact-1", "fact-2"]
    span = traces[0].data.spans[0]
    assert (span.inputs, span.outputs, span.attributes["gold/score"]) == ({"prompt": "how?"}, "so", 0.5)


def test_the_pictures_of_a_stage_show_its_measures_and_its_reward_over_the_kl(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run") / "dpo"
    lines = [{"step": step, "policy/kl": step / 10, "reward/mean": step} for step in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    drawn = figures(folder)
    assert list(drawn) == ["plots/measures", "plots/reward_against_kl"]
    assert all(pixels.shape[2] == 3 and pixels.std() > 5 for pixels in drawn.values())
    (axes,) = reward_over_kl(folder).axes
    assert axes.lines[0].get_xydata().tolist() == [[0.1, 1.0], [0.2, 2.0]]


def test_the_saved_view_of_wandb_shows_what_runs_log() -> None:
    """Built and not saved: the spec that would be sent to a server."""
    pytest.importorskip("wandb_workspaces")
    from alignlab.reports.wandb_workspace import workspace

    view = workspace("team", "project")
    assert (view.entity, view.project) == ("team", "project")
    section = json.loads(view._to_model().model_dump_json(by_alias=True, exclude_none=True))["spec"]["section"]
    sections = {one["name"]: one["panels"] for one in section["panelBankConfig"]["sections"]}
    assert list(sections) == ["Reward against KL", "Losses", "Preferences", "Evaluation"]
    reward = sections["Reward against KL"][0]["config"]
    assert (reward["xAxis"], reward["metrics"]) == ("policy/kl", ["reward/mean", "reward/held_out", "gold/score"])
    assert sections["Losses"][0]["config"]["metrics"] == ["train/loss", "eval/loss"]
    table, plots = sections["Evaluation"]
    assert '"completions"' in json.dumps(table)
    assert plots["config"]["mediaKeys"] == ["plots/measures", "plots/reward_against_kl"]
    assert [key["name"] for key in section["runSets"][0]["grouping"]] == ["group", "jobType"]
