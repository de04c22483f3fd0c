"""Mutated files through the loader in one process: a sentence or rows, in bounded time and memory, none lost.

`ALIGNLAB_FUZZ=10000` loads that many; a failing number names its file: `fuzz.mutant(number)`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import alignlab

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("ALIGNLAB_FUZZ", "200"))
HERE = Path(__file__).parent


def test_no_mutated_file_brings_a_traceback_or_loses_a_row(tmp_path):
    """A process of its own, so that the bound on its memory is the loader's."""
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzz.py"), str(COUNT), str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    found = json.loads(done.stdout)
    assert found["longest"] < 10, found
    assert found["memory"] < 1 << 30, found
    assert 0.1 * COUNT < found["refused"] < 0.9 * COUNT  # both paths were walked


def test_a_mutated_file_given_to_the_command_ends_with_one_sentence(tmp_path):
    (tmp_path / "rows.json").write_bytes(b'[{"prompt": "A?", "completion": "B"}, {"prompt"')
    done = alignlab("task=prepare", "dataset=file", "dataset.path=rows.json", folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("rows.json:1: the file is not JSON here")
    assert done.stderr.count("\n") == 1
