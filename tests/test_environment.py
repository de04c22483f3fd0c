"""`.env` in the current folder: keys and folders, without a word about them, and less than the environment itself."""

import os
import re

import pytest
from command import ROOT, alignlab

from alignlab import main
from alignlab.errors import Mistake

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
    (tmp_path / ".env").write_text("HF_TOKEN=file\nHF_HOME=file\nWANDB_API_KEY=\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "environment")
    for name in ("HF_HOME", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    main.read_environment()
    assert (os.environ["HF_TOKEN"], os.environ["HF_HOME"]) == ("environment", "file")
    assert "WANDB_API_KEY" not in os.environ


def test_a_foreign_file_sets_no_variable_that_runs_code(tmp_path, monkeypatch, capsys):
    """The names that are ignored are printed, their values are not; nothing is filled in from the environment."""
    (tmp_path / ".env").write_text("LD_PRELOAD=/evil.so\nHF_ENDPOINT=http://evil\nexport HF_HOME=${SECRET}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "s3cret")
    monkeypatch.setenv("HF_HOME", "")
    monkeypatch.delenv("HF_HOME")
    before = dict(os.environ)
    main.read_environment()
    assert dict(os.environ) == {**before, "HF_HOME": "${SECRET}"}
    printed = capsys.readouterr().err
    assert printed.startswith(".env: LD_PRELOAD, HF_ENDPOINT ignored; a file .env may set HF_TOKEN")
    assert "evil" not in printed


def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path, monkeypatch):
    (tmp_path / ".env").write_bytes(b"HF_TOKEN=\xff\xfe")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Mistake, match=r"^\.env: cannot be read"):
        main.read_environment()


def test_the_example_lists_what_is_read():
    lines = (ROOT / ".env.example").read_text().splitlines()
    names = {line.lstrip("# ").partition("=")[0] for line in lines if re.match(r"(# )?[A-Z_]+=", line)}
    assert names == set(main.IN_DOTENV)
