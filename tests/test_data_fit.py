"""The plan warns where rows do not fit the settings."""

import json

import pytest
from command import config
from tiny import tiny_tokenizer

from alignlab.errors import Mistake
from alignlab.models.references import Source
from alignlab.pipeline import data_fit
from alignlab.pipeline.prepare_inputs import prepare_data


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    """Write 100 pairs whose chosen answers have 10 tokens, and every fourth 60."""
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": f"why {number}", "chosen": "mix " * (60 if number % 4 == 0 else 10), "rejected": "no"}
        for number in range(100)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return ["model=scratch", "dataset=file", f"dataset.path={file}", "dataset.validation=0.0", "dataset.test=0.1"]


def warned(tmp_path, *overrides, rows=90):
    bound = config(*overrides).chosen({}, [text.partition("=")[0] for text in overrides])
    prepare_data(bound)
    base = Source("base", tmp_path / "model", "")
    return list(data_fit.warnings(bound, bound.method, "method", base, rows))


def test_answers_that_are_too_long_are_counted(pairs, tmp_path):
    (line,) = warned(tmp_path, *pairs, "method=ppo", "method.max_new_tokens=48")
    assert "of chosen answers are longer than method.max_new_tokens (48)" in line
    assert 15 <= int(line.split("%")[0].rpartition(" ")[2]) <= 35  # a quarter, less the held-out ones
    assert warned(tmp_path, *pairs, "method=ppo", "method.max_new_tokens=64") == []


def test_rows_that_are_cut_are_counted(pairs, tmp_path):
    (line,) = warned(tmp_path, *pairs, "method=dpo", "method.max_length=32")
    assert "method.max_length (32) cuts " in line
    assert line.endswith(", 0 pairs become identical and are left out")


def test_a_batch_of_more_than_all_rows_is_named(pairs, tmp_path):
    (line,) = warned(tmp_path, *pairs, "method=dpo", "method.batch_size=300", rows=286)
    assert line == "warning: method.batch_size (300) is more than the rows; every step takes all 286 rows"
    with pytest.raises(Mistake, match=r"method.batch_size: 100,000 is more than 10 times the rows"):
        warned(tmp_path, *pairs, "method=dpo", "method.batch_size=100000", rows=286)


def test_what_truncation_takes_is_counted():
    fits, long_prompt = ([1] * 4, [2] * 4, [3] * 2), ([1] * 20, [2] * 4, [3] * 2)
    same_start = ([1] * 4, [2] * 9 + [5], [2] * 8 + [6] * 9)
    assert data_fit.count_cut([fits], 10, 0.25) == (0, 0, 0)
    assert data_fit.count_cut([fits, long_prompt], 10, 0.25) == (1, 14, 0)  # 6 tokens of the prompt stay
    assert data_fit.count_cut([same_start], 10, 0.25) == (1, 2 + 2 + 9, 1)  # 2 of the prompt stay, and 8 of each side


def test_nothing_is_said_without_a_tokenizer(pairs, tmp_path):
    (tmp_path / "model" / "tokenizer.json").unlink()
    assert warned(tmp_path, *pairs, "method=dpo", "method.max_length=32") == []
