"""Folders appear whole or not at all; a full disk is one sentence."""

import os
import re
import shutil
import subprocess
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import pytest

from alignlab.errors import Failure
from alignlab.runtime.cache import building
from alignlab.runtime.file_errors import explained_file_errors, variable_of
from alignlab.runtime.files import cache_root, digest, digest_files, write_text


def test_a_folder_appears_only_when_it_is_whole(tmp_path):
    final = tmp_path / "model"
    with building(final) as folder:
        (folder / "weights").write_text("1")
        assert not final.exists()
    assert (final / "weights").read_text() == "1"
    with building(final) as folder:
        assert folder is None


def test_an_error_leaves_nothing_behind(tmp_path):
    with pytest.raises(ZeroDivisionError), building(tmp_path / "model") as folder:
        (folder / "weights").write_text("1")
        _ = 1 / 0
    assert [path.name for path in tmp_path.iterdir()] == ["model.lock"]


def test_a_stage_keeps_its_checkpoints_when_it_is_interrupted(tmp_path):
    with pytest.raises(KeyboardInterrupt), building(tmp_path / "sft", keep_partial=True) as folder:
        (folder / "checkpoint").write_text("1")
        raise KeyboardInterrupt
    assert not (tmp_path / "sft").exists()
    with building(tmp_path / "sft", keep_partial=True) as folder:
        assert (folder / "checkpoint").read_text() == "1"


def build_once(final: Path, log: Path) -> None:
    with building(final) as folder:
        if folder is not None:
            with log.open("a") as lines:
                lines.write(f"{os.getpid()}\n")
            (folder / "x").write_text("")


def test_two_processes_build_a_folder_once(tmp_path):
    jobs = [get_context("fork").Process(target=build_once, args=(tmp_path / "a", tmp_path / "log")) for _ in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_the_digest_depends_on_values_and_not_on_order():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2}) != digest({"a": True})
    assert len(digest("x")) == 16


def test_files_are_known_by_content(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("same")
    second.write_text("same")
    assert digest_files([first]) == digest_files([second])
    second.write_text("other")
    assert digest_files([first]) != digest_files([second])


def test_the_cache_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "here"))
    assert cache_root() == tmp_path / "here"
    monkeypatch.delenv("ALIGNLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root() == tmp_path / "alignlab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "alignlab"


@pytest.fixture
def tiny_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_one_sentence_and_nothing_half_written(tiny_disk, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_OUTPUTS", str(tiny_disk))
    place = re.escape(str(tiny_disk / "rows"))
    now = "free some, or set ALIGNLAB_OUTPUTS to a larger disk"
    with pytest.raises(Failure, match=f"{place}: no space left on the disk; {now}"), explained_file_errors(tiny_disk):
        write_text(tiny_disk / "rows", "x" * 200_000)
    assert list(tiny_disk.iterdir()) == []
    with pytest.raises(Failure, match="no space left"), building(tiny_disk / "model") as folder:
        (folder / "weights").write_text("x" * 200_000)
    assert [path.name for path in tiny_disk.iterdir()] == ["model.lock"]


def native_writers():
    """Writers of libraries whose errors hold no number; each is called with a folder."""
    import sqlite3

    import torch
    from safetensors.torch import save_file
    from tiny import tiny_tokenizer

    tensor = torch.zeros(50_000)
    yield lambda folder: torch.save({"a": tensor}, folder / "optimizer.pt")
    yield lambda folder: save_file({"a": tensor}, folder / "model.safetensors")
    yield lambda folder: tiny_tokenizer().save_pretrained(folder / "x" / "y")

    def fill(folder):
        rows = "with recursive n(i) as (select 1 union all select i + 1 from n limit 9999) select i from n"
        with closing(sqlite3.connect(folder / "study.db")) as database:
            database.execute(f"create table t as {rows}")

    yield fill


def test_a_full_disk_under_a_native_library_is_the_same_sentence(tiny_disk, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tiny_disk))
    (tiny_disk / "filler").write_bytes(bytes(60_000))
    message = "no space left on the disk; free some, or set ALIGNLAB_CACHE to a larger disk"
    for write in native_writers():
        with pytest.raises(Failure, match=message), explained_file_errors(tiny_disk):
            write(tiny_disk)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "/data/run/x"), "/data/run/x: cannot be used .Permission denied"),
        (OSError(30, "Read-only file system", "/cache/x"), "permissions, or set ALIGNLAB_CACHE to another folder"),
        (OSError(27, "File too large"), "run: no space left on the disk; free some, or set ALIGNLAB_OUTPUTS"),
        (
            OSError(28, "Full", "/cache/x", None, "/data/x"),
            "^/data/x: no space left on the disk; free .* ALIGNLAB_OUTPUTS",
        ),
        (
            shutil.Error([("/cache/x", "/data/x", "[Errno 28] No space left on device: '/cache/x' -> '/data/x'")]),
            "^/data/x: no space left on the disk; free .* ALIGNLAB_OUTPUTS",
        ),
        (FileNotFoundError(2, "No such file or directory", "/data/run/x"), "/data/run: was removed during the run"),
    ],
)
def test_errors_of_the_file_system_name_the_place_and_the_variable(error, message, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", "/cache")
    monkeypatch.setenv("ALIGNLAB_OUTPUTS", "/data")
    with pytest.raises(Failure, match=message), explained_file_errors(Path("/data/run")):
        raise error


@pytest.mark.parametrize("error", [ValueError("Permission denied"), ConnectionRefusedError(13, "x"), RuntimeError("x")])
def test_other_errors_stay_as_they_are(error, tmp_path):
    with pytest.raises(type(error)), explained_file_errors(tmp_path):
        raise error


def test_the_innermost_folder_names_the_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert variable_of(tmp_path / "cache" / "stages") == "ALIGNLAB_CACHE"
    assert variable_of(tmp_path / "file") == "TMPDIR"
