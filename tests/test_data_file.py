"""Files of every kind and format: how they are read, how broken rows are reported, and that no row is lost."""

import csv
import gzip
import json

import pytest
from command import config

from alignlab import data
from alignlab.config.dataset import FileData
from alignlab.data import file_dataset, readers
from alignlab.data.splits import SPLITS
from alignlab.errors import Failure, Mistake

DEFAULTS = dict(config("dataset=file", "dataset.path=.", "model=scratch").dataset)


@pytest.fixture(autouse=True)
def _temporary_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))


def file_data(path, **settings):
    """Return the data set of one path; all its rows are training rows unless the settings differ."""
    return FileData(**{**DEFAULTS, "path": (path,), "validation": 0.0, "test": 0.0, **settings})


def jsonl(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


SAY, WORSE = "So.", "No."
SYSTEM = {"role": "system", "content": "Be kind."}
ROWS = [{"prompt": f"What is {n} and {n}?", "completion": f"It is\n“{2 * n}”."} for n in range(700)]


def write_csv(path):
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, ["prompt", "completion"])
        table.writeheader()
        table.writerows(ROWS)


def write_saved(path):
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(str(path))


def write_dictionary(path):
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[:3])}).save_to_disk(str(path))


def write_parquet(path):
    from datasets import Dataset

    Dataset.from_list(ROWS).to_parquet(str(path))


KINDS = {
    "rows.csv": write_csv,
    "rows.jsonl": lambda path: jsonl(path, ROWS),
    "lines.json": lambda path: jsonl(path, ROWS),
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in ROWS).encode())),
    "rows.json": lambda path: path.write_text(json.dumps(ROWS, indent=2, ensure_ascii=False), encoding="utf-8"),
    "flat.json": lambda path: path.write_text(json.dumps(ROWS)),
    "rows.json.gz": lambda path: path.write_bytes(gzip.compress(json.dumps(ROWS).encode())),
    "rows.parquet": write_parquet,
    "saved": write_saved,
    "dictionary": write_dictionary,
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name):
    KINDS[name](tmp_path / name)
    rows = data.view(file_data(tmp_path / name), "demonstrations", "train")
    assert [(row["prompt"], row["completion"]) for row in rows] == [
        ([user(row["prompt"])], row["completion"]) for row in ROWS
    ]


def test_readers_report_the_line_on_which_a_row_begins(tmp_path):
    (tmp_path / "a.json").write_text('[\n {"a": "x\\ny"},\n\n {"b": 1}, 3]')
    (tmp_path / "a.csv").write_text('a,b\n"x\ny",1\n2,3\n4\n')
    assert [row.line for row in readers.read_records(tmp_path / "a.json")] == [2, 4, 4]
    assert [row.line for row in readers.read_records(tmp_path / "a.csv")] == [2, 4, 5]


def test_a_folder_gives_the_rows_of_all_its_files_each_in_its_own_format(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    jsonl(folder / "a.jsonl", [{"prompt": "A?", "completion": "B"}])
    (folder / "b.csv").write_text("instruction;output\nC?;D\n")
    (folder / "dataset_info.json").write_text(json.dumps({"x": {"file_name": "a.jsonl"}}))
    (folder / "README.md").write_text("no data")
    rows = data.view(file_data(folder), "demonstrations", "train")
    assert [(row["id"], row["completion"]) for row in rows] == [("a.jsonl:1", "B"), ("b.csv:2", "D")]


def test_the_names_of_a_folders_files_decide_their_splits(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    for split, count in (("train", 5), ("validation", 3), ("test", 2)):
        rows = [{"prompt": f"{split} {n}?", "completion": "So."} for n in range(count)]
        jsonl(folder / f"{split}-00000-of-00001.jsonl", rows)
    (folder / "dataset_infos.json").write_text('{"default": {"features": {}}}')
    assert file_dataset.read_report(file_data(folder, test=0.5)).rows == {"train": 5, "validation": 3, "test": 2}
    alone = file_data(folder / "test-00000-of-00001.jsonl")
    assert file_dataset.read_report(alone).rows["train"] == 2
    jsonl(folder / "train_sft-00000-of-00001.jsonl", [{"prompt": "SFT?", "completion": "So."}])
    assert file_dataset.read_report(file_data(folder, train_split="train_sft")).rows["train"] == 1
    with pytest.raises(Failure, match=r"holds the splits train, train_sft; choose one with dataset.train_split"):
        file_dataset.read_report(file_data(folder, train_split="train_gen"))
    (folder / "held").mkdir()
    jsonl(folder / "held" / "test.jsonl", ROWS[:2])
    with pytest.raises(Failure, match="holds files of held-out splits alone"):
        file_dataset.read_report(file_data(folder / "held"))


SHAPES = {
    "one.json": '{\n "prompt": "A?",\n "completion": "B"\n}\n',
    "several.jsonl": '{\n "prompt": "A?",\n "completion": "B"\n}\n{\n "prompt": "C?", "completion": "D"}\n',
    "inside.json": '{"type": "x", "instances": [{"input": "A?", "output": "B"}, {"input": "C?", "output": "D"}]}',
    "turns.jsonl": '[{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B"}]\n' * 2,
}


@pytest.mark.parametrize("name", SHAPES)
def test_objects_over_many_lines_rows_inside_an_object_and_lists_of_turns_are_read(tmp_path, name):
    (tmp_path / name).write_text(SHAPES[name])
    rows = data.view(file_data(tmp_path / name), "demonstrations", "train")
    assert next((row["prompt"], row["completion"]) for row in rows) == ([user("A?")], "B")
    assert len(rows) == (2 if name in ("several.jsonl", "inside.json") else 1)  # equal turns are one row


def test_views_are_built_from_prompts_and_completions_best_first(tmp_path):
    ranked = {"prompt": "A?", "completions": ["1", "2", "3"]}
    dataset = file_data(jsonl(tmp_path / "rows.jsonl", [ranked]))
    pairs = data.view(dataset, "pairs", "train")
    assert [(row["chosen"], row["rejected"]) for row in pairs] == [("1", "2"), ("1", "3"), ("2", "3")]
    assert data.view(dataset, "demonstrations", "train")["completion"][:] == ["1"]
    assert data.view(dataset, "rankings", "train")["completions"][:] == [["1", "2", "3"]]
    assert data.view(dataset, "prompts", "train")["prompt"][:] == [[user("A?")]]
    assert data.view(dataset, "text", "train")["text"][:] == ["\n\nHuman: A?\n\nAssistant: 1"]
    with pytest.raises(Mistake, match="hold no pairs; take a method that needs one of: demonstrations, prompts, text"):
        data.view(file_data(jsonl(tmp_path / "more.jsonl", ROWS[:3])), "pairs", "train")


BROKEN = [
    ('{"prompt": "A', "", "not JSON"),
    ("[1]", "", "not a JSON object"),
    ({"prompt": "A?"}, "completion", "missing"),
    ({"prompt": 3, "completion": "B"}, "prompt", "a number"),
    ({"prompt": "A?", "completion": ["B"]}, "completion", "the field is a list of texts"),
    ({"prompt": "A?", "completion": " "}, "completion", "empty"),
    ({"prompt": "", "completion": "B"}, "prompt", "empty"),
    ({"prompt": [bot("A")], "completion": "B"}, "prompt", "does not begin with the user"),
    ({"prompt": [user("A"), bot("B")], "completion": "B"}, "prompt", "does not end with the user"),
    ({"prompt": [user("A"), SYSTEM, user("B")], "completion": "B"}, "prompt", "system turn"),
    ({"prompt": [{"role": "tool", "content": "A"}], "completion": "B"}, "prompt", "'tool' is unknown"),
    ({"prompt": "A?", "completion": "half \ud800"}, "", "half of a character"),
    ({"prompt": "A?", "completion": "x" * 1_000_001}, "", "over 1,000,000 characters"),
]


@pytest.mark.parametrize(("broken", "field", "reason"), BROKEN, ids=lambda value: str(value)[:30])
def test_a_broken_row_is_rejected_with_what_was_expected_or_stops_the_run(tmp_path, broken, field, reason):
    path = jsonl(tmp_path / "rows.jsonl", [ROWS[0], broken, ROWS[1]])
    dataset = file_data(path, max_rejects=0.5)
    report = file_dataset.read_report(dataset)
    assert report.rows["train"] == 2
    assert sum(report.rejects.values()) == 1
    (reject,) = map(json.loads, (file_dataset.prepare(dataset) / "rejects.jsonl").read_text().splitlines())
    assert (reject["file"], reject["line"], reject["field"]) == (str(path), 2, field)
    assert reason in reject["reason"]
    assert reject["expected"]
    with pytest.raises(Failure, match=r"rows\.jsonl:2: .*this row is broken; fix it"):
        file_dataset.read_report(file_data(path, on_broken="stop"))
    with pytest.raises(Failure, match="1 of 3 rows are broken, this one first; fix them, or allow more"):
        file_dataset.read_report(file_data(path))


UNREADABLE = {
    "empty.csv": (b"", "holds no rows"),
    "header.csv": (b"a,b\n", "holds no rows"),
    "open.csv": (b'prompt,completion\n"A,B\nC,D\n', r"open\.csv:2: a cell does not end"),
    "empty.json": (b"[]", "holds no rows"),
    "cut.json": (b'[{"prompt": "A?", "completion": "B"},\n{"prompt": "A', r"cut\.json:2: the file is not JSON here"),
    "comma.json": (b'[{"prompt": "A?"} {"prompt": "B?"}]', "no comma after a row"),
    "ends.json": (b'[{"prompt": "A?"},', "ends too early"),
    "more.json": (b'[{"prompt": "A?"}] x', "something follows"),
    "pointer.parquet": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
        "a Git LFS pointer, not the data",
    ),
    "page.json": (b"<!DOCTYPE html><html>", "a web page, not data"),
    "twice.csv": (b"prompt,completion,prompt\nA?,B,C\n", "the column 'prompt' more than once"),
    "cut.csv": (b"prompt,completion\nA?,B\nC?", r"cut\.csv:3: the last line is cut off"),
    "cut.jsonl": (b'{"prompt": "A?"}\n{"prompt": "B', r"cut\.jsonl:2: the last line is cut off"),
    "index.json": (b'{\n"a": {"file_name": "b.json"}}', "an index of data sets, not data; give a file .* b.json"),
    "latin.json": (b'[{"prompt": "caf\xe9"}]', "not UTF-8"),
    "rows.parquet": (b"PAR1 and then nothing", "cannot be read"),
    "picture.png": (b"\x89PNG\r\n", "not of a kind that holds rows"),
    "odd.csv": (b"colour,shape\nred,round\n", "the fields colour, shape have no known format; known are"),
    "deep.json": (b"[" + b'{"a":' * 100_000, "cannot be decoded|not JSON"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_file_raises_a_failure_of_one_line(tmp_path, name):
    content, message = UNREADABLE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Failure, match=message) as raised:
        file_dataset.read_report(file_data(tmp_path / name))
    assert "\n" not in str(raised.value)


def test_a_saved_dictionary_without_the_split_names_the_splits_that_it_has(tmp_path):
    write_dictionary(tmp_path / "saved")
    with pytest.raises(Failure, match="no split 'train_sft'; it has test, train"):
        file_dataset.read_report(file_data(tmp_path / "saved", train_split="train_sft"))
    both = file_data(tmp_path / "saved", test_path=(tmp_path / "saved",), deduplicate="none")
    assert file_dataset.read_report(both).rows == {"train": 700, "validation": 0, "test": 3}


def test_a_named_format_is_not_detected(tmp_path):
    path = jsonl(tmp_path / "rows.jsonl", [{"prompt": "A?", "text": "All of it."}])
    assert file_dataset.read_report(file_data(path, format="prompts", ignore=("text",))).forms == {"prompts": 1}
    assert file_dataset.read_report(file_data(path)).forms == {"text": 1}


def test_no_question_is_in_two_splits_however_it_is_phrased(tmp_path):
    phrasings = [
        "Explain gravity to children {}",
        "to {} CHILDREN, explain gravity!",
        "explain  gravity to the children {}",
    ]
    rows = [
        {"prompt": phrasing.format(f"number{n}"), "completion": str(n)} for n in range(300) for phrasing in phrasings
    ]
    dataset = file_data(jsonl(tmp_path / "rows.jsonl", rows), validation=0.2, test=0.3)
    splits = [{row["completion"] for row in data.view(dataset, "demonstrations", name)} for name in SPLITS]
    assert all(abs(len(split) / 300 - share) < 0.09 for split, share in zip(splits, (0.5, 0.2, 0.3), strict=True))
    assert sum(map(len, splits)) == len(set.union(*splits)) == 300


def test_the_content_hash_depends_on_bytes_and_settings_and_not_on_the_folder(tmp_path):
    first, second = (tmp_path / name / "rows.jsonl" for name in "ab")
    for path in (first, second):
        path.parent.mkdir()
        jsonl(path, ROWS[:3])
    assert data.content(file_data(first)) == data.content(file_data(second))
    assert data.content(file_data(first)) != data.content(file_data(first, deduplicate="none"))
    jsonl(second, ROWS[:4])
    assert data.content(file_data(first)) != data.content(file_data(second))


def test_files_of_other_frameworks_load_by_their_path(data_folder):
    files = [
        p
        for name in ("peers-llamafactory", "peers-fastchat", "sft-instructions")
        for p in data_folder.glob(f"{name}/*")
    ]
    assert len(files) == 10
    for path in files:
        if path.name == "dataset_info.json":
            with pytest.raises(Failure, match="an index of data sets, not data"):
                file_dataset.read_report(file_data(path))
            continue
        report = file_dataset.read_report(file_data(path))
        assert not report.rejects
        for step in report.steps.values():
            added, dropped = sum(step["added"].values()), sum(step["dropped"].values())
            assert step["rows_in"] + added == step["rows_out"] + dropped
        assert report.rows["train"] == report.steps["split"]["rows_out"] > 9


def test_pairs_keep_their_weights_and_soft_labels(tmp_path):
    pair = {"prompt": "Why?", "chosen": SAY, "rejected": WORSE}
    judged = [{**pair, "label": 0.75, "weight": 0.1}, {**pair, "prompt": "How?", "weight": 0.3}]
    pairs = data.view(file_data(jsonl(tmp_path / "judged.jsonl", judged)), "pairs", "train")
    assert pairs["label"][:] == [0.75, 1.0]
    assert pairs["weight"][:] == [pytest.approx(0.5), pytest.approx(1.5)]  # scaled to a mean of 1


def test_the_pairs_of_a_ranking_share_its_weight(tmp_path):
    rows = [{"prompt": "Why?", "completions": list("abc")}, {"prompt": "How?", "completions": list("de")}]
    pairs = data.view(file_data(jsonl(tmp_path / "rows.jsonl", rows)), "pairs", "train")
    assert pairs["chosen"][:] == ["a", "a", "b", "d"]
    assert pairs["weight"][:] == pytest.approx(
        [2 / 3, 2 / 3, 2 / 3, 2.0]
    )  # weights 1/3, 1/3, 1/3 and 1, scaled to a mean of 1
    same = data.view(file_data(jsonl(tmp_path / "same.jsonl", rows[:1])), "pairs", "train")
    assert "weight" not in same.column_names


def splits_of(path, rows):
    """Return the rows of each split with the shares of the defaults."""
    report = file_dataset.read_report(file_data(jsonl(path, rows), validation=0.05, test=0.05))
    return [report.rows[name] for name in SPLITS]


def test_no_split_is_empty_where_rows_are_enough(tmp_path):
    rows = [{"prompt": f"Question {n}, is it {n}?", "completion": f"It is {n}."} for n in range(60)]
    assert splits_of(tmp_path / "12.jsonl", rows[:12]) == [10, 1, 1]
    assert splits_of(tmp_path / "5.jsonl", rows[:5]) == [3, 1, 1]
    assert splits_of(tmp_path / "4.jsonl", rows[:4]) == [4, 0, 0]
    assert min(splits_of(tmp_path / "60.jsonl", rows)) > 0


def test_an_opening_that_all_rows_share_does_not_split_them(tmp_path):
    rows = [
        {"messages": [user("Good morning, friend"), bot("Hello"), user(f"What is {n}?"), bot(f"It is {n}.")]}
        for n in range(300)
    ]
    train, validation, test = splits_of(tmp_path / "rows.jsonl", rows)
    assert train + validation + test == 300
    assert min(validation, test) > 5
    assert train > 250
    same = [{"prompt": "Hello there, friend", "completion": f"Hello {n}."} for n in range(30)]
    assert splits_of(tmp_path / "same.jsonl", same) == [30, 0, 0]
