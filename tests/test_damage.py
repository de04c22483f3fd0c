"""A damaged checkpoint or cache entry is one sentence, and is made again; no result differs without a word."""

import json
import os
import resource
import shutil
from types import SimpleNamespace

import pytest
from damage import DAMAGES

from alignlab.config import model_size
from alignlab.errors import Explained, Failure
from alignlab.evaluation.measures import stereoset
from alignlab.models import references
from alignlab.pipeline import run_folder
from alignlab.pipeline.sweep_folder import read_facts
from alignlab.preferences.panel import join_panel
from alignlab.rewards.constrained import ends_of
from alignlab.runtime import cache, manifest
from alignlab.runtime.cache import building, check_links, is_intact
from alignlab.runtime.journal import Journal
from alignlab.runtime.tracking import JsonlTracker, remove_from
from alignlab.sweeps.runner import is_damaged
from alignlab.tasks.generate import check_output
from alignlab.training import checkpoints

CHECKPOINT = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "whole.json")
STAGE = ("model/model.safetensors", "model/tokenizer.json", "metrics.jsonl", manifest.MANIFEST)
DATA = ("train.arrow", "report.json")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "_faults", {})


def write(folder, names, content="text of a file, "):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}" if name == "trainer_state.json" else f"{content}{name}")


def checkpoint(folder, step, state="{}"):
    place = folder / f"checkpoint-{step}"
    write(place, CHECKPOINT[:-1])
    (place / "trainer_state.json").write_text(state)
    checkpoints.complete(place, checkpoints.record_of_processes())
    return place


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", CHECKPOINT)
def test_training_resumes_from_the_checkpoint_before_a_damaged_one(tmp_path, capsys, name, damage):
    older, newer = checkpoint(tmp_path, 9), checkpoint(tmp_path, 10)
    DAMAGES[damage](newer / name)
    assert checkpoints.last_checkpoint(tmp_path) == str(older)
    assert not newer.exists()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == (name != "whole.json" or damage != "delete")  # a crash leaves none either
    assert all("checkpoint-10: " in line and "resumes from an earlier one" in line for line in said)


def test_a_checkpoint_whose_best_one_is_damaged_is_not_taken(tmp_path, capsys):
    first, best = checkpoint(tmp_path, 2), checkpoint(tmp_path, 4)
    checkpoint(tmp_path, 6, json.dumps({"best_model_checkpoint": f"/elsewhere/{best.name}"}))
    DAMAGES["flip"](best / "model.safetensors")
    assert checkpoints.last_checkpoint(tmp_path) == str(first)
    assert "the best checkpoint, checkpoint-4, is damaged (the content of model" in capsys.readouterr().err


def build(final, names):
    """Build a folder of the cache as its owner does; return whether it was built now."""
    with building(final) as folder:
        if folder is not None:
            write(folder, names)
    cache._faults.clear()  # the next one is another process
    return folder is not None


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("names", "name"), [(kind, name) for kind in (STAGE, DATA) for name in kind])
def test_a_damaged_folder_of_the_cache_is_made_again(tmp_path, capsys, names, name, damage):
    final, contents = tmp_path / "stages" / "sft", [name for name in names if name != manifest.MANIFEST]
    assert build(final, contents)
    expected = {path: path.read_bytes() for path in final.rglob("*") if path.is_file()}
    assert not build(final, contents)
    DAMAGES[damage](final / name)
    assert not is_intact(final)
    assert build(final, contents)
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"{final}: ")
    assert said.endswith("; it is made again")
    assert {path: path.read_bytes() for path in final.rglob("*") if path.is_file()} == expected


def test_a_model_is_read_whole_once_per_machine(tmp_path, monkeypatch):
    final, read = tmp_path / "stages" / "sft", []
    build(final, STAGE[:-1])
    monkeypatch.setattr(manifest, "sha256", lambda path, hashed=manifest.sha256: read.append(path.name) or hashed(path))
    for _ in range(3):
        assert not build(final, STAGE[:-1])
    assert sorted(read) == ["metrics.jsonl", "model.safetensors", "tokenizer.json"]
    os.utime(final / "model/model.safetensors", (1, 1))
    assert not build(final, STAGE[:-1])
    assert len(read) == 6
    build(tmp_path / "data", DATA)
    read.clear()
    for _ in range(3):
        assert not build(tmp_path / "data", DATA)
    assert len(read) == 6


def test_a_stage_is_finished_without_its_checkpoints(tmp_path):
    with building(tmp_path / "sft") as folder:
        write(folder, [*STAGE[:-1], "checkpoints/checkpoint-1/optimizer.pt"])
    shutil.rmtree(tmp_path / "sft" / "checkpoints")
    assert is_intact(tmp_path / "sft")


def test_a_downloaded_file_that_has_changed_is_not_linked_again(tmp_path):
    weights = tmp_path / "blobs" / "weights"
    weights.parent.mkdir()
    weights.write_text("1234")
    with building(tmp_path / "m") as folder:
        (folder / "model.safetensors").symlink_to(weights)
    DAMAGES["flip"](weights)
    with pytest.raises(Failure, match=r"blobs/weights: its content has changed since it was downloaded; remove it"):
        check_links(tmp_path / "m")
    weights.unlink()
    check_links(tmp_path / "m")
    assert not is_intact(tmp_path / "m")


@pytest.mark.parametrize("damage", DAMAGES)
def test_rows_of_a_stage_that_were_damaged_are_computed_again(tmp_path, damage):
    manifest.write_sealed(tmp_path / "labels.jsonl", '{"kept": true}\n')
    assert manifest.is_sealed(tmp_path / "labels.jsonl")
    DAMAGES[damage](tmp_path / "labels.jsonl")
    assert not manifest.is_sealed(tmp_path / "labels.jsonl")


def test_a_damaged_row_of_a_journal_is_computed_again(tmp_path, capsys):
    file = tmp_path / "labels.jsonl"
    rows = [{"id": str(n), "label": 0.5} for n in range(4)]
    Journal(file).add(rows)
    file.write_text(file.read_text().replace('"2", "label": 0.5', '"2", "label": 0.7'))
    assert list(Journal(file).rows.values()) == [rows[0], rows[1], rows[3]]
    assert "1 damaged rows; they are computed again" in capsys.readouterr().err
    Journal(file).add(rows)
    assert list(Journal(file).rows) == ["0", "1", "3", "2"]
    file.write_text('{"id": "9"}\nnonsense\n[1]\n\0\0\n')
    assert list(Journal(file).rows) == ["9"]


def read_panel(file):
    (file.parent / "labels.jsonl").write_text('{"id": "1", "readings": [5]}\n')
    return join_panel([], [file.parent], "hash")


def read_cost(file):
    context = SimpleNamespace(folder=lambda _: file.parent, place="reward.costs.harm")
    return ends_of(
        SimpleNamespace(reward=SimpleNamespace(model_path="m"), threshold=None, floor=None, ceiling=None), context
    )


def read_completions(file):
    file.with_name("done.jsonl").touch()
    return check_output({}, file.with_name("done.jsonl"))


READERS = {
    "config.yaml": lambda file: run_folder.read_settings(file.parent),
    "sweep.yaml": lambda file: read_facts(file.parent),
    "result.json": lambda file: run_folder.read_result(file.parent),
    "plan.json": lambda file: run_folder.read_plan(file.parent),
    "preferences.json": read_panel,
    "calibration.json": read_cost,
    "done.jsonl.settings": read_completions,
    "dev.json": lambda file: [stereoset.example(row, where) for where, row in stereoset.read_examples(file)],
    "model.safetensors": lambda file: model_size.shapes(file.parent),
}
BROKEN = {
    "cut": b'{"a": [1, "x',
    "zero": bytes(40),
    "no UTF-8": b"\xff\xfe\x00",
    "deep": b"[" * 100_000,
    "a number": b"5",
    "numbers": b'{"data": {"a": [5]}, "answers_hash": "hash", "sweep": 3}',
}
HARMLESS = {
    ("config.yaml", "numbers"),
    ("sweep.yaml", "numbers"),
    ("calibration.json", "numbers"),
}


@pytest.mark.parametrize("broken", [name for name in BROKEN if name != "numbers"])
def test_a_damaged_result_of_a_run_that_is_named_as_a_model_says_how_to_name_its_stage(tmp_path, broken):
    (tmp_path / "result.json").write_bytes(BROKEN[broken])
    with pytest.raises(Failure, match=r"result.json: .*; run its command again, or give the folder of its stage"):
        references.find_model("task.model", str(tmp_path))


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("name", READERS)
def test_a_broken_file_is_one_sentence_that_names_it(tmp_path, name, broken):
    (tmp_path / name).write_bytes(BROKEN[broken])
    if (name, broken) in HARMLESS:
        READERS[name](tmp_path / name)
        return
    with pytest.raises(Explained) as error:
        READERS[name](tmp_path / name)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_a_run_whose_settings_are_an_alias_bomb_is_refused(tmp_path):
    levels = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    (tmp_path / "config.yaml").write_text(f"a0: &a0 x\n{levels}")
    with pytest.raises(Failure, match=r"config\.yaml: its aliases stand for more than"):
        run_folder.read_settings(tmp_path)


def test_damaged_lines_of_metrics_are_removed_when_a_stage_resumes(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n[1]\n{"loss": 2}\n5\n{"step": "x"}\n{"step": 3}\n')
    remove_from(file, 3)
    assert steps(file) == [1]


def steps(file):
    return [json.loads(line)["step"] for line in file.read_text().splitlines()]


def test_a_line_that_a_full_disk_cut_short_is_removed(tmp_path):
    track = JsonlTracker(tmp_path / "metrics.jsonl")
    track.log({"train/loss": 1.0}, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (track.metrics.stat().st_size + 9, limits[1]))
    try:
        with pytest.raises(Failure, match=r"no space left on the disk"):
            track.log({"train/loss": 2.0}, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    track.log({"train/loss": 3.0}, 3)
    assert steps(track.metrics) == [1, 3]


def test_a_line_that_a_crash_cut_short_is_removed_before_the_next(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2, "train/l')
    JsonlTracker(file).log({"train/loss": 3.0}, 3)
    assert steps(file) == [1, 3]


def test_a_sweeps_run_whose_stage_is_damaged_is_not_finished(tmp_path):
    """A run's folder shares its weights with the stage in the cache (hard links)."""
    run, stage = tmp_path / "multirun" / "0", tmp_path / "stages" / "sft-0f"
    assert build(stage, STAGE[:-1])
    write(run / "sft", [run_folder.PROVENANCE])
    (run / "sft" / run_folder.PROVENANCE).write_text('{"stage": "sft", "fingerprint": "0f"}')
    assert not is_damaged(run)
    DAMAGES["flip"](stage / STAGE[0])
    assert is_damaged(run)
    shutil.rmtree(stage)
    assert not is_damaged(run)  # a cache that was emptied says nothing about the run
