"""Mutated files through the loader in one process: a sentence or rows, in bounded time and memory, none lost.

`ALIGNLAB_FUZZ=10000` loads that many; a failing number names its file: `fuzz.mutant(number)`.
"""

import os

from command import alignlab, config
from fuzz import load, memory, mutant

from alignlab.config import FileData

COUNT = int(os.environ.get("ALIGNLAB_FUZZ", "200"))
DEFAULTS = dict(config("dataset=file", "dataset.path=.", "task=prepare").dataset)
MILD = {"max_rejects": 1.0, "deduplicate": "near"}


def test_no_mutated_file_brings_a_traceback_or_loses_a_row(tmp_path):
    outcomes = []
    for number in range(COUNT):
        name, data = mutant(number)
        path = tmp_path / name
        path.write_bytes(data)
        settings = DEFAULTS | {"path": (path,)} | (MILD if number % 2 else {})
        try:
            outcomes.append(load(FileData(**settings), tmp_path / "out"))
        except Exception as error:
            raise AssertionError(f"mutant {number} ({name}): {type(error).__name__}: {str(error)[:300]}") from error
    assert max(outcome.seconds for outcome in outcomes) < 10
    assert memory() < 1 << 30
    refused = sum(bool(outcome.said) for outcome in outcomes)
    assert 0.1 * COUNT < refused < 0.9 * COUNT  # both paths were walked


def test_a_mutated_file_given_to_the_command_ends_with_one_sentence(tmp_path):
    (tmp_path / "rows.json").write_bytes(b'[{"prompt": "A?", "completion": "B"}, {"prompt"')
    done = alignlab("task=prepare", "dataset=file", "dataset.path=rows.json", folder=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("rows.json:1: the file is not JSON here")
    assert done.stderr.count("\n") == 1
