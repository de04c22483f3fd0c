"""One cache for the whole session, away from the user's; nothing is asked of the network."""

import atexit
import gc
import os
import shutil
import tempfile

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
if "ALIGNLAB_TESTS" not in os.environ:  # pytest's workers share the folder of the process that starts them
    os.environ["ALIGNLAB_TESTS"] = os.environ["ALIGNLAB_CACHE"] = tempfile.mkdtemp(prefix="alignlab-tests-")
    atexit.register(shutil.rmtree, os.environ["ALIGNLAB_TESTS"], ignore_errors=True)


def pytest_collection_finish() -> None:
    """Let what the libraries have brought in be, whenever garbage is looked for: it is never any."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def data_folder():
    """The folder of real public data; tests that need it are skipped without it."""
    from pathlib import Path

    folder = os.environ.get("ALIGNLAB_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ALIGNLAB_DATA names no folder of real data")
    return Path(folder)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with rows and a cache of its own, for commands that are started there; none of them outlives the test.

    Workers may import what lies beside the tests.
    """
    from pathlib import Path

    from command import ROOT
    from running import STARTED
    from several import write_rows

    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    write_rows(tmp_path / "rows.jsonl")
    yield tmp_path
    while STARTED:
        STARTED.pop().kill()  # its workers die with it
