"""`.env` in the current folder: keys and folders, without a word about them, and less than the environment itself."""

import os

import pytest
from command import alignlab

from alignlab import main

PREPARE = ["task=prepare", "dataset=file", "dataset.path=rows.jsonl"]


@pytest.mark.runs
def test_folders_are_read_from_a_file(tmp_path, monkeypatch):
    monkeypatch.delenv("ALIGNLAB_CACHE")
    (tmp_path / ".env").write_text("ALIGNLAB_CACHE=kept\nALIGNLAB_OUTPUTS='my runs'\nHF_TOKEN=hf_secret\n")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "Why?", "completion": "So."}\n' * 3)
    done = alignlab(*PREPARE, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "kept" / "data").iterdir())
    assert list((tmp_path / "my runs").glob("*/*/card.html"))
    assert not (tmp_path / "outputs").exists()
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".env"]
    assert not [path for path in written if b"hf_secret" in path.read_bytes()]
    assert "hf_secret" not in done.stdout + done.stderr


def test_the_environment_counts_more(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("ALIGNLAB_FIRST=file\nALIGNLAB_SECOND=file\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNLAB_FIRST", "environment")
    monkeypatch.setenv("ALIGNLAB_SECOND", "")
    monkeypatch.delenv("ALIGNLAB_SECOND")
    main.read_environment()
    assert (os.environ["ALIGNLAB_FIRST"], os.environ["ALIGNLAB_SECOND"]) == ("environment", "file")
