"""A data format of a user's own, as docs/extending.md describes it."""

import json
import re
import sys

import pytest
from command import ROOT, config

from alignlab import data
from alignlab.config import dataset as settings
from alignlab.config.compose import compose
from alignlab.data import row_formats
from alignlab.errors import Mistake

EXAMPLE = re.compile(r"```(?:python|yaml)\n# ((?:conf/dataset|formats)/\S+)\n(.*?)```", re.DOTALL)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A user's folder with the documentation's format and two rows, one of them broken."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    files = dict(EXAMPLE.findall((ROOT / "docs/extending.md").read_text(encoding="utf-8")))
    assert set(files) == {"formats/grade_school.py", "conf/dataset/grade_school.yaml"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    rows = [{"question": f"{n} + 1?", "solution": f"Add. #### {n + 1}"} for n in range(40)]
    rows.append({"question": "2 + 2?", "solution": "4"})
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    yield tmp_path
    for name in ("formats", "formats.grade_school"):
        sys.modules.pop(name, None)


CHOSEN = ("dataset=grade_school", "dataset.path=rows.jsonl", "dataset.max_rejects=0.1", "model=scratch", "method=sft")


def test_a_format_of_a_users_own_reads_rows(project):
    dataset = compose(*CHOSEN, config_dir="conf").dataset
    rows = [row for split in ("train", "validation", "test") for row in data.view(dataset, "demonstrations", split)]
    assert len(rows) == 40
    assert {row["completion"] for row in rows} == {f"Add. #### {n + 1}" for n in range(40)}
    assert all(row["prompt"][0]["role"] == "user" for row in rows)


def test_its_code_is_part_of_the_content(project):
    dataset = compose(*CHOSEN, config_dir="conf").dataset
    before, file = data.content(dataset), project / "formats" / "grade_school.py"
    for addition, is_same in (("# a comment", True), ("OTHER = 1", False)):
        file.write_text(f"{file.read_text()}\n{addition}\n")
        assert (data.content(dataset) == before) == is_same


def test_a_file_without_a_format_is_one_sentence(project):
    (project / "formats" / "grade_school.py").write_text("")
    dataset = compose(*CHOSEN, config_dir="conf").dataset
    with pytest.raises(Mistake, match=r"formats.grade_school declares no FORMAT; see docs/extending.md"):
        data.view(dataset, "demonstrations", "train")


def test_an_unknown_format_is_named_with_a_suggestion():
    with pytest.raises(Mistake, match=r"dataset.format: 'alpacca' is none of .*; did you mean 'alpaca'\?"):
        config("dataset=file", "dataset.path=rows.jsonl", "dataset.format=alpacca", "model=scratch")


def test_the_names_of_the_settings_are_those_of_the_formats():
    assert set(settings.FORMATS) == set(row_formats.FORMATS)
