"""Load mutated files: each gives rows or a failure, in bounded time and memory, and no row is lost.

`ALIGNLAB_FUZZ=10000` sets how many files are loaded; `fuzz.mutant(number)` returns the file of a failing number.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import alignlab

pytestmark = pytest.mark.runs

COUNT = int(os.environ.get("ALIGNLAB_FUZZ", "200"))
HERE = Path(__file__).parent


def test_no_mutated_file_causes_a_traceback_or_loses_a_row(tmp_path):
    """Run in a process of its own, so that only the memory of the loader is measured."""
    process = subprocess.run(
        [sys.executable, str(HERE / "fuzz.py"), str(COUNT), str(tmp_path)], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-2_000:]
    result = json.loads(process.stdout)
    assert result["longest"] < 10, result
    assert result["memory"] < 1 << 30, result
    assert 0.1 * COUNT < result["refused"] < 0.9 * COUNT  # both outcomes occur


def test_the_command_reports_a_mutated_file_in_one_line(tmp_path):
    (tmp_path / "rows.json").write_bytes(b'[{"prompt": "A?", "completion": "B"}, {"prompt"')
    process = alignlab("task=prepare", "dataset=file", "dataset.path=rows.json", folder=tmp_path)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert process.stderr.startswith("rows.json:1: the file is not JSON here")
    assert process.stderr.count("\n") == 1
