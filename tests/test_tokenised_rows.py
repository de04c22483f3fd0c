"""Many rows are tokenised once, by several processes, and read from the cache by everyone else."""

from dataclasses import replace
from pathlib import Path

import pytest
from command import config
from datasets import Dataset
from tiny import tiny_tokenizer

from alignlab.methods import dpo
from alignlab.runtime.stage_run import Run
from alignlab.training import tokenised_rows


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    bound = config("method=dpo", "model=pocket_small", "dataset=pocket_small")
    words = ("bake", "bread", "mix", "flour", "water", "stop", "why", "now")
    pairs = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": f"how do i {words[number % 8]}"}],
                "chosen": f"{words[number % 7]} and {words[number % 5]}",
                "rejected": words[number % 3],
                "label": 0.5 + number % 4 / 10,
                "weight": 1.0,
            }
            for number in range(100)
        ]
    )
    rows = {("pairs", "train"): pairs, ("pairs", "validation"): pairs}
    return Run(bound, bound.method, {"policy": tmp_path / "model"}, tmp_path / "run", None, rows), tokenizer


def folders(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.glob("cache/tokens/*[!k]"))


def test_rows_of_several_processes_are_those_of_one(run, tmp_path, monkeypatch):
    small = dpo.tokenise_pairs(*run)["train"]
    assert not folders(tmp_path)
    monkeypatch.setattr(tokenised_rows, "FEW", 30)
    large = dpo.tokenise_pairs(*run)["train"]
    assert large.to_list() == small.to_list()
    assert len(folders(tmp_path)) == 1


def test_the_second_process_reads_what_the_first_has_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(tokenised_rows, "FEW", 30)
    first = dpo.tokenise_pairs(*run)["train"].to_list()
    monkeypatch.setattr("alignlab.chat.encode", None)  # would fail
    assert dpo.tokenise_pairs(*run)["train"].to_list() == first


@pytest.mark.parametrize(
    ("changed", "again"), [({"learning_rate": 0.1}, False), ({"max_length": 9}, True), ({"label_smoothing": 0.1}, True)]
)
def test_a_setting_that_changes_the_ids_changes_the_key(run, tmp_path, monkeypatch, changed, again):
    monkeypatch.setattr(tokenised_rows, "FEW", 30)
    first, tokenizer = run
    dpo.tokenise_pairs(first, tokenizer)
    dpo.tokenise_pairs(replace(first, method=first.method.model_copy(update=changed)), tokenizer)
    assert len(folders(tmp_path)) == 1 + again


def test_other_rows_and_another_tokenizer_change_the_key(run, monkeypatch):
    first, tokenizer = run

    def key(changed):
        return tokenised_rows.key_of(changed, changed.rows["pairs", "train"], dpo.tokenise_pairs)

    before = key(first)
    other = {("pairs", "train"): first.rows["pairs", "train"].select(range(99))}
    assert key(replace(first, rows=other)) != before
    tokenizer.chat_template += " "
    tokenizer.save_pretrained(first.inputs["policy"])
    assert key(first) != before
