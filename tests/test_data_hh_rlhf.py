"""HH-RLHF files: what comes out of good ones, what is said of bad ones."""

import gzip
import json
import subprocess

import pytest

from alignlab import data
from alignlab.config.dataset import HhRlhfData
from alignlab.data import hh_rlhf
from alignlab.errors import Failure, Mistake
from alignlab.runtime.files import cache_root


def talk(*said):
    """A transcript of turns that alternate, the human first."""
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {text}" for i, text in enumerate(said))


def row(question, good="Yes.", bad="No."):
    return {"chosen": talk(question, good), "rejected": talk(question, bad)}


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Make a data set of given training rows or a file, with a cache of its own."""
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))

    def make(train, **settings):
        train = train if not isinstance(train, list) else written(tmp_path / "train.jsonl", train)
        test = written(tmp_path / "test.jsonl", [row("Is it a test?")])
        given = {"max_rows": None, "validation": 0.0, "on_broken": "reject", "max_rejects": 1.0, "train": train}
        return HhRlhfData(**{"kind": "hh_rlhf", "test": str(test), **given, **settings, "train": (train,)})

    return make


def left():
    """What is in the cache besides locks."""
    return sorted(p.name for p in (cache_root() / "data").glob("*") if p.suffix != ".lock")


def test_a_row_becomes_a_prompt_and_two_answers(dataset):
    transcript = {
        "chosen": talk("Hi", "Hello", "Why: \n\nbecause?", "So."),
        "rejected": talk("Hi", "Hello", "Why: \n\nbecause?", "No"),
    }
    pairs = data.view(dataset([transcript]), "pairs", "train")
    assert pairs[0] == {
        "prompt": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "Why: \n\nbecause?"},
        ],
        "chosen": "So.",
        "rejected": "No",
        "id": "train.jsonl:1",
    }


def test_every_view_tells_of_the_same_rows(dataset):
    made = dataset([row("A?", "Good."), row("B?", "Fine."), row("A?", "Better.")])
    assert data.view(made, "demonstrations", "train")["completion"][:] == ["Good.", "Fine.", "Better."]
    assert [p[0]["content"] for p in data.view(made, "prompts", "train")["prompt"]] == ["A?", "B?"]
    assert data.view(made, "text", "train")["text"][0] == talk("A?", "Good.")
    assert len(data.view(made, "pairs", "test")) == 1
    with pytest.raises(Mistake, match="hh_rlhf has no rankings"):
        data.view(made, "rankings", "train")


@pytest.mark.parametrize(
    ("broken", "field", "reason"),
    [
        ({"chosen": talk("A?", "B")}, "rejected", "missing"),
        ({"chosen": talk("A?", "B"), "rejected": 3}, "rejected", "not text"),
        ({"chosen": talk("A?", "B"), "rejected": talk("C?", "D")}, "chosen, rejected", "differ before the last turn"),
        (row("A?", good="  "), "chosen", "answer is empty"),
        (row("A?", bad=""), "rejected", "answer is empty"),
        (row("A?", "Same.", "Same."), "chosen, rejected", "the same"),
        ({"chosen": "A? B", "rejected": talk("A?", "C")}, "chosen", "begin with a human turn"),
        ({"chosen": talk("A?", "B"), "rejected": talk("A?", "B", "C?")}, "rejected", "end with an assistant turn"),
        ("not an object", "", "not a JSON object"),
    ],
)
def test_a_broken_row_is_counted_or_stops_the_run_with_file_and_line(dataset, tmp_path, broken, field, reason):
    rows = [row("First?"), broken, row("Third?")]
    made = dataset(rows)
    assert data.view(made, "pairs", "train")["id"][:] == ["train.jsonl:1", "train.jsonl:3"]
    (counted,) = [json.loads(x) for x in (hh_rlhf.prepare(made) / "rejects.jsonl").read_text().splitlines()]
    assert (counted["file"], counted["line"], counted["field"]) == (str(tmp_path / "train.jsonl"), 2, field)
    assert reason in counted["reason"]
    assert sum(hh_rlhf.report(made).rejects.values()) == 1
    with pytest.raises(Failure, match=rf"train\.jsonl:2: .*{reason}") as stopped:
        data.view(dataset(rows, on_broken="stop"), "pairs", "train")
    assert "\n" not in str(stopped.value)


def test_too_many_broken_rows_end_the_run(dataset):
    rows = [row("Good?"), {}, row("Fine?"), {}]
    assert len(data.view(dataset(rows, max_rejects=0.5), "pairs", "train")) == 2
    with pytest.raises(Failure, match=r"train\.jsonl:2: .*2 of 4 rows are broken"):
        data.view(dataset(rows, max_rejects=0.4), "pairs", "train")
    with pytest.raises(Failure, match="1 of 1 rows are broken"):
        data.view(dataset([{}]), "pairs", "train")


def test_oddities_are_made_to_fit_and_counted(dataset):
    twice = {side: f"\n\nHuman: A?\n\nHuman: B?\n\nAssistant: {side}" for side in ("chosen", "rejected")}
    hollow = {side: talk("A?", "", "B?", side) for side in ("chosen", "rejected")}
    made = dataset([twice, hollow, row("long " * 1000), row("Is it a TEST?")])
    assert data.view(made, "pairs", "train")["prompt"][0] == [{"role": "user", "content": "A?\n\nB?"}]
    assert hh_rlhf.report(made).notes == {
        "turns of one speaker in a row, joined": 1,
        "an empty turn before the last": 1,
        "over 4,000 characters": 1,
        "the opening is in the test files too": 1,
    }


def test_no_opening_stands_on_both_sides_of_the_validation_split(dataset):
    rows = [row(f"Question {n // 3}?", f"Answer {n}.") for n in range(900)]
    made = dataset(rows, validation=0.2)
    train, held = ({p[0]["content"] for p in data.view(made, "pairs", s)["prompt"]} for s in ("train", "validation"))
    assert not train & held
    assert len(train | held) == 300
    assert 40 <= len(held) <= 80  # 60 are expected; the standard deviation is 7


def test_max_rows_takes_the_first_rows(dataset):
    assert data.view(dataset([row(f"{n}?") for n in range(5)], max_rows=2), "pairs", "train")["id"][:] == [
        "train.jsonl:1",
        "train.jsonl:2",
    ]


def test_content_follows_the_bytes_and_not_the_name(dataset, tmp_path):
    first = data.content(dataset([row("A?")]))
    assert first == data.content(dataset(written(tmp_path / "renamed.jsonl", [row("A?")])))
    assert first != data.content(dataset([row("B?")]))
    assert first != data.content(dataset([row("A?")], validation=0.5))


def test_folders_and_gzipped_files_are_read(dataset, tmp_path):
    folder = tmp_path / "many" / "inside"
    folder.mkdir(parents=True)
    written(folder / "b.jsonl", [row("B?")])
    with gzip.open(folder / "a.jsonl.gz", "wt") as stream:
        stream.write(json.dumps(row("A?")) + "\n\n")
    (folder / "README.md").write_text("no row")
    assert data.view(dataset(tmp_path / "many"), "pairs", "train")["id"][:] == ["a.jsonl.gz:1", "b.jsonl:1"]


def test_a_file_cannot_train_and_test(dataset, tmp_path):
    with pytest.raises(Mistake, match=r"test\.jsonl is among the training files"):
        data.view(dataset(tmp_path), "pairs", "train")


def truncated(path):
    whole = gzip.compress("".join(json.dumps(row(f"{n}?", f"{n * n}.")) + "\n" for n in range(2000)).encode())
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("empty.jsonl", lambda p: p.write_bytes(b""), r"empty\.jsonl:1: the file is empty"),
        ("blank.jsonl", lambda p: p.write_bytes(b"\n\n"), r"blank\.jsonl:1: the file is empty"),
        ("empty.jsonl.gz", lambda p: p.write_bytes(b""), r"empty\.jsonl\.gz:1: the file is empty"),
        ("cut.jsonl.gz", truncated, r"cut\.jsonl\.gz:\d+: the gzip file ends too early"),
        ("plain.jsonl.gz", lambda p: written(p, [row("A?")]), r"plain\.jsonl\.gz:1: the gzip file is damaged"),
        (
            "latin.jsonl",
            lambda p: p.write_bytes(json.dumps(row("A?")).encode() + b'\n{"chosen": "caf\xe9"}\n'),
            r"latin\.jsonl:2: byte 16 of the line is not UTF-8",
        ),
    ],
)
def test_an_unreadable_file_stops_with_its_line_and_leaves_nothing(dataset, tmp_path, name, spoil, message):
    spoil(tmp_path / name)
    with pytest.raises(Failure, match=message) as stopped:
        data.view(dataset(tmp_path / name), "pairs", "train")
    assert "\n" not in str(stopped.value)
    assert left() == []


@pytest.fixture
def tiny_disk(tmp_path):
    """A disk of 64 KiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("a disk cannot be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_said_and_leaves_nothing(dataset, tiny_disk, monkeypatch):
    made = dataset([row(f"Question {n}?", "word " * 50) for n in range(2000)])
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tiny_disk))
    with pytest.raises(Failure, match="no room left on the disk") as stopped:
        data.view(made, "pairs", "train")
    assert "\n" not in str(stopped.value)
    assert left() == []


def test_the_real_rows_are_read(data_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    place = data_folder / "hh-rlhf"
    made = HhRlhfData(
        kind="hh_rlhf",
        train=(place / "harmless-base.train.2000.jsonl",),
        test=(place / "helpful-base.test.dev.jsonl",),
        max_rows=None,
        validation=0.1,
        on_broken="reject",
        max_rejects=0.05,
    )
    found = hh_rlhf.report(made)
    assert found.rows["train"] + found.rows["validation"] + found.rows["test"] + sum(found.rejects.values()) == 2350
    assert 100 < found.rows["validation"] < 300
