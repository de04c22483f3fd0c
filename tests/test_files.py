"""Folders appear whole or not at all; a full disk is one sentence."""

import os
import subprocess
from multiprocessing import get_context
from pathlib import Path

import pytest

from alignlab.errors import Failure
from alignlab.runtime.cache import building
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
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_sentence_and_nothing_half_written(tiny_disk):
    with pytest.raises(Failure, match="no space left on the disk; free some, or set ALIGNLAB_CACHE"):
        write_text(tiny_disk / "rows", "x" * 200_000)
    assert list(tiny_disk.iterdir()) == []
    with pytest.raises(Failure, match="no space left"), building(tiny_disk / "model") as folder:
        (folder / "weights").write_text("x" * 200_000)
    assert [path.name for path in tiny_disk.iterdir()] == ["model.lock"]
