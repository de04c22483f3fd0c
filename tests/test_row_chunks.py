"""Rows that several processes prepare: the same files, counts and errors as in one process."""

import json

import pytest
from command import config

from alignlab.config.dataset import FileData
from alignlab.data import file_dataset, prepared, row_chunks
from alignlab.data.prepared import splits_in
from alignlab.errors import Failure
from alignlab.reports import data_card
from alignlab.tasks import prepare

DEFAULTS = dict(config("dataset=file", "dataset.path=.", "model=scratch").dataset)
WORKERS = pytest.mark.parametrize("workers", [1, 2])


@pytest.fixture
def few(monkeypatch):
    """Return a function that sets the number of workers, with chunks of few rows."""

    def set_workers(count, rows=8):
        for module in (row_chunks, prepared):
            monkeypatch.setattr(module, "worker_count", lambda _: count)
        monkeypatch.setattr(row_chunks, "CHUNK_ROWS", rows)
        monkeypatch.setattr(prepared, "PART_ROWS", rows)

    return set_workers


def mixed_rows(count):
    """Return rows of several formats, with broken, empty and repeated ones."""
    shapes = [
        lambda n: {"prompt": f"What is the number {n} of all?", "completion": f"It is {n}.", "kind": f"kind {n % 3}"},
        lambda n: {"prompt": f"Who was number {n} then?", "chosen": f"He, {n}.", "rejected": f"She, {n}.", "note": "x"},
        lambda n: {"prompt": f"Why {n}?", "completion": n},
        lambda n: {"prompt": "Is it the same question?", "completion": "Mail a@b.org."},
        lambda n: {"prompt": f"Where is it, number {n}?", "completion": "  "},
        lambda n: {"instruction": f"Add {n}.", "instances": [{"input": "", "output": f"{n + k}"} for k in range(3)]},
    ]
    lines = [json.dumps(shapes[(n * n + n // 7) % len(shapes)](n)) for n in range(count)]
    lines[count // 3] = '{"prompt": "not JSON'
    lines[count // 2] = f'{{"prompt": "How deep?", "completion": "Deep.", "note": {"[" * 700}{"]" * 700}}}'
    return [line for n, line in enumerate(lines) for _ in range(1 + (n % 10 == 9))]


def file_data(folder, lines, **settings):
    (folder / "rows.jsonl").write_text("".join(line + "\n" for line in lines))
    return FileData(**{**DEFAULTS, "path": (folder / "rows.jsonl",), "max_rejects": 0.9, **settings})


def written(folder, dataset):
    """Return every file that the preparation of a data set writes, and its card."""
    folder.mkdir()
    file_dataset.write_splits(dataset, folder)
    splits = splits_in(folder)
    card = data_card.as_json(data_card.card(splits))
    counts = [prepare.write_rows(rows, folder / name) for name, rows in splits.items()]
    files = {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return files, card, counts


STEPS = {
    "deduplicate": "near",
    "validation": 0.2,
    "clean": DEFAULTS["clean"].model_copy(update={"spaces": True}),
    "mask": DEFAULTS["mask"].model_copy(update={"kinds": ("email",)}),
    "augment": DEFAULTS["augment"].model_copy(update={"typos": 0.3}),
}


@pytest.mark.parametrize("settings", [{}, STEPS], ids=["plain", "steps"])
def test_the_number_of_workers_and_the_size_of_chunks_change_no_byte(tmp_path, few, settings):
    dataset = file_data(tmp_path, mixed_rows(240), **settings)
    few(1, rows=1000)
    alone = written(tmp_path / "alone", dataset)
    report = json.loads((tmp_path / "alone" / "report.json").read_text())
    assert report["rows"]["train"] > 100  # more than a batch of the Arrow file
    assert report["steps"]["deduplicate"]["dropped"]
    assert len(report["rejects"]) > 2
    for workers in (1, 2):
        few(workers)
        assert written(tmp_path / f"{workers}", dataset) == alone


@WORKERS
def test_the_first_fault_of_the_file_is_the_one_that_is_told(tmp_path, few, workers):
    few(workers)
    good = [json.dumps({"prompt": f"Is it {n}?", "completion": "So."}) for n in range(60)]
    broken = [*good[:29], '{"prompt": "Why?", "completion": 3}', *good[30:]]
    for lines, message in (
        (broken, "rows.jsonl:30: completion: the field is a number: this row is broken"),
        ([*broken[:50], '{"a": 1, "a": 2}'], "rows.jsonl:30: completion: the field is a number: this row"),
        ([*good, '{"prompt": "cut'], r"rows.jsonl:61: the last line is cut off"),
        ([*broken, '{"prompt": "cut'], "rows.jsonl:30: completion: the field is a number: this row is broken"),
    ):
        dataset = file_data(tmp_path, lines, on_broken="stop")
        dataset.path[0].write_text(dataset.path[0].read_text()[:-1])
        with pytest.raises(Failure, match=message):
            file_dataset.write_splits(dataset, tmp_path)
    with pytest.raises(Failure, match=r"rows.jsonl:30: completion: .*: 1 of 60 rows are broken, this one first"):
        file_dataset.write_splits(file_data(tmp_path, broken, max_rejects=0.0), tmp_path)


def test_no_more_rows_than_the_limit_are_read_whatever_is_rejected(tmp_path, few):
    few(2)
    lines = [json.dumps({"prompt": f"Is it {n}?", "completion": " " if n % 5 == 1 else "So."}) for n in range(60)]
    file_dataset.write_splits(file_data(tmp_path, [*lines, "cut"], max_rows=20), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    assert sum(report["rows"].values()) == 20
    assert report["steps"]["read"]["rows_in"] == 25  # rows 1, 6, 11, 16 and 21 are empty
    assert report["rejects"] == {"completion: the completion is empty": 5}
