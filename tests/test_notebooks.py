"""Notebooks: each equals the file that it is generated from, and runs from its first to its last cell."""

import re

import jupytext
import pytest
from command import ROOT

FOLDER = ROOT / "notebooks"
NAMES = sorted(file.stem for file in FOLDER.glob("*.py"))
TOPICS = {"data", "fine_tuning", "rlhf", "evaluation", "constitutional_ai", "feedback"}


def cells(notebook):
    """Return the kind and the source of each cell."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_there_is_a_notebook_for_each_topic():
    assert set(NAMES) == TOPICS == {file.stem for file in FOLDER.glob("*.ipynb")}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_equals_its_file_and_holds_no_output(name):
    source, notebook = (jupytext.read(FOLDER / f"{name}.{suffix}") for suffix in ("py", "ipynb"))
    assert cells(notebook) == cells(source)  # else: make notebooks
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    (install,) = [text for kind, text in cells(source) if kind == "code" and '"pip", "install"' in text]
    assert install == cells(jupytext.read(FOLDER / f"{NAMES[0]}.py"))[1][1]
    assert re.search(r"torch==\{version\('torch'\)\}", install)  # what Colab has stays


@pytest.mark.notebooks
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, tmp_path):
    from nbclient import NotebookClient

    notebook = jupytext.read(FOLDER / f"{name}.ipynb")
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert any(cell.get("outputs") for cell in notebook.cells)
