"""The storage of a search, and workers of a launcher that are killed: sentences, and two searches on one new file."""

import os
import subprocess
import sys

import pytest

from alignlab.errors import Failure
from alignlab.sweeps.launchers import explained_worker
from alignlab.sweeps.optuna_search import open_study


@pytest.mark.parametrize(
    "storage",
    [
        "sqlite:////proc/nothing/study.db",
        "mysql://user:secret@localhost/db",
        "nonsense",
        "odd://user:secret@host/db",
        "sqlite:///{folder}",
        "sqlite:///{folder}/text.db",
    ],
)
def test_a_storage_that_cannot_be_opened_is_one_sentence(tmp_path, storage):
    (tmp_path / "text.db").write_text("no database, but a text of a certain length\n" * 99)
    with pytest.raises(Failure, match=r"^sweep\.storage: cannot be opened \(") as caught:
        open_study(storage.format(folder=tmp_path), "sweep", "maximize")
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.runs
def test_two_searches_make_one_new_database(tmp_path):
    code = "from alignlab.sweeps.optuna_search import open_study; import optuna; optuna.logging.set_verbosity(50)\n"
    code += f"input(); open_study('sqlite:///{tmp_path}/study.db', 'sweep', 'maximize'); print('opened')"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(3)]
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in both] == ["opened\n"] * 3


def test_a_killed_worker_of_joblib_is_one_sentence():
    from joblib import Parallel, delayed

    with (
        pytest.raises(Failure, match="hydra/launcher: a worker process of the launcher was killed"),
        explained_worker(),
    ):
        Parallel(n_jobs=2)(delayed(os._exit)(9) for _ in range(2))
