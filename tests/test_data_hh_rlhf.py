"""HH-RLHF files: how good rows are parsed and how broken rows are reported."""

import gzip
import json
import re
import subprocess
from random import Random

import pytest

from alignlab import data
from alignlab.config.dataset import HhRlhfData
from alignlab.data import hh_rlhf
from alignlab.errors import Failure, Mistake
from alignlab.runtime.files import cache_root


def talk(*texts):
    """Return a transcript of alternating turns, the human first."""
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {text}" for i, text in enumerate(texts))


def row(question, good="Yes.", bad="No."):
    return {"chosen": talk(question, good), "rejected": talk(question, bad)}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def make_dataset(tmp_path, monkeypatch):
    """Return a function that builds a data set from training rows or a file, with a temporary cache."""
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))

    def make(train, **settings):
        train = train if not isinstance(train, list) else write_rows(tmp_path / "train.jsonl", train)
        test = write_rows(tmp_path / "test.jsonl", [row("Is it a test?")])
        defaults = {
            "learn": "all",
            "label_pairs": False,
            "max_rows": None,
            "validation": 0.0,
            "on_broken": "reject",
            "max_rejects": 1.0,
            "train": train,
        }
        return HhRlhfData(**{"kind": "hh_rlhf", "test": str(test), **defaults, **settings, "train": (train,)})

    return make


def cached():
    """List the files in the cache, without locks."""
    return sorted(p.name for p in (cache_root() / "data").glob("*") if p.suffix != ".lock")


def test_a_transcript_is_split_as_by_a_regular_expression():
    speaker, random = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):"), Random(0)
    pieces = ("Human:", "Assistant:", "\n\n", "\n", " ", "\u2003", "\x1c", "text", "Human", ":", "System:")
    for _ in range(3000):
        text = "".join(random.choices(pieces, k=random.randrange(9)))
        assert hh_rlhf.split_speakers(text) == speaker.split(text), repr(text)


def test_a_row_is_parsed_to_a_prompt_and_two_completions(make_dataset):
    transcript = {
        "chosen": talk("Hi", "Hello", "Why: \n\nbecause?", "So."),
        "rejected": talk("Hi", "Hello", "Why: \n\nbecause?", "No"),
    }
    pairs = data.view(make_dataset([transcript]), "pairs", "train")
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


def test_every_view_has_the_same_rows(make_dataset):
    dataset = make_dataset([row("A?", "Good."), row("B?", "Fine."), row("A?", "Better.")])
    assert data.view(dataset, "demonstrations", "train")["completion"][:] == ["Good.", "Fine.", "Better."]
    assert [p[0]["content"] for p in data.view(dataset, "prompts", "train")["prompt"]] == ["A?", "B?"]
    assert data.view(dataset, "text", "train")["text"][0] == talk("A?", "Good.")
    assert len(data.view(dataset, "pairs", "test")) == 1
    with pytest.raises(Mistake, match="hh_rlhf has no rankings"):
        data.view(dataset, "rankings", "train")


@pytest.mark.parametrize(
    ("broken", "field", "reason"),
    [
        ({"chosen": talk("A?", "B")}, "rejected", "missing"),
        ({"chosen": talk("A?", "B"), "rejected": 3}, "rejected", "not text"),
        ({"chosen": talk("A?", "B"), "rejected": talk("C?", "D")}, "chosen, rejected", "differ before the last turn"),
        (row("A?", good="  "), "chosen", "completion is empty"),
        (row("A?", bad=""), "rejected", "completion is empty"),
        (row("A?", "Same.", "Same."), "chosen, rejected", "the same"),
        ({"chosen": "A? B", "rejected": talk("A?", "C")}, "chosen", "begin with a human turn"),
        ({"chosen": talk("A?", "B"), "rejected": talk("A?", "B", "C?")}, "rejected", "end with an assistant turn"),
        ("not an object", "", "not a JSON object"),
    ],
)
def test_a_broken_row_is_counted_or_stops_the_run_with_file_and_line(make_dataset, tmp_path, broken, field, reason):
    rows = [row("First?"), broken, row("Third?")]
    dataset = make_dataset(rows)
    assert data.view(dataset, "pairs", "train")["id"][:] == ["train.jsonl:1", "train.jsonl:3"]
    (reject,) = [json.loads(x) for x in (hh_rlhf.prepare(dataset) / "rejects.jsonl").read_text().splitlines()]
    assert (reject["file"], reject["line"], reject["field"]) == (str(tmp_path / "train.jsonl"), 2, field)
    assert reason in reject["reason"]
    assert sum(hh_rlhf.read_report(dataset).rejects.values()) == 1
    with pytest.raises(Failure, match=rf"train\.jsonl:2: .*{reason}") as raised:
        data.view(make_dataset(rows, on_broken="stop"), "pairs", "train")
    assert "\n" not in str(raised.value)


def test_too_many_broken_rows_end_the_run(make_dataset):
    rows = [row("Good?"), {}, row("Fine?"), {}]
    assert len(data.view(make_dataset(rows, max_rejects=0.5), "pairs", "train")) == 2
    with pytest.raises(Failure, match=r"train\.jsonl:2: .*2 of 4 rows are broken"):
        data.view(make_dataset(rows, max_rejects=0.4), "pairs", "train")
    with pytest.raises(Failure, match="1 of 1 rows are broken"):
        data.view(make_dataset([{}]), "pairs", "train")


def test_tolerated_faults_are_fixed_and_counted(make_dataset):
    twice = {side: f"\n\nHuman: A?\n\nHuman: B?\n\nAssistant: {side}" for side in ("chosen", "rejected")}
    empty = {side: talk("A?", "", "B?", side) for side in ("chosen", "rejected")}
    dataset = make_dataset([twice, empty, row("long " * 1000), row("Is it a TEST?")])
    assert data.view(dataset, "pairs", "train")["prompt"][0] == [{"role": "user", "content": "A?\n\nB?"}]
    assert hh_rlhf.read_report(dataset).notes == {
        "turns of one speaker in a row, joined": 1,
        "an empty turn before the last": 1,
        "over 4,000 characters": 1,
        "the opening is in the test files too": 1,
    }


def test_no_opening_is_in_both_the_training_and_the_validation_split(make_dataset):
    rows = [row(f"Question {n // 3}?", f"Answer {n}.") for n in range(900)]
    dataset = make_dataset(rows, validation=0.2)
    train, held = ({p[0]["content"] for p in data.view(dataset, "pairs", s)["prompt"]} for s in ("train", "validation"))
    assert not train & held
    assert len(train | held) == 300
    assert 40 <= len(held) <= 80  # 60 are expected; the standard deviation is 7


def test_max_rows_takes_the_first_rows(make_dataset):
    assert data.view(make_dataset([row(f"{n}?") for n in range(5)], max_rows=2), "pairs", "train")["id"][:] == [
        "train.jsonl:1",
        "train.jsonl:2",
    ]


def test_the_content_hash_depends_on_the_bytes_and_not_on_the_name(make_dataset, tmp_path):
    first = data.content(make_dataset([row("A?")]))
    assert first == data.content(make_dataset(write_rows(tmp_path / "renamed.jsonl", [row("A?")])))
    assert first != data.content(make_dataset([row("B?")]))
    assert first != data.content(make_dataset([row("A?")], validation=0.5))


def test_folders_and_gzipped_files_are_read(make_dataset, tmp_path):
    folder = tmp_path / "many" / "inside"
    folder.mkdir(parents=True)
    write_rows(folder / "b.jsonl", [row("B?")])
    with gzip.open(folder / "a.jsonl.gz", "wt") as stream:
        stream.write(json.dumps(row("A?")) + "\n\n")
    (folder / "README.md").write_text("no row")
    assert data.view(make_dataset(tmp_path / "many"), "pairs", "train")["id"][:] == ["a.jsonl.gz:1", "b.jsonl:1"]


def test_a_file_cannot_train_and_test(make_dataset, tmp_path):
    with pytest.raises(Mistake, match=r"test\.jsonl is among the training files"):
        data.view(make_dataset(tmp_path), "pairs", "train")


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
        ("plain.jsonl.gz", lambda p: write_rows(p, [row("A?")]), r"plain\.jsonl\.gz:1: the gzip file is damaged"),
        (
            "latin.jsonl",
            lambda p: p.write_bytes(json.dumps(row("A?")).encode() + b'\n{"chosen": "caf\xe9"}\n'),
            r"latin\.jsonl:2: byte 16 of the line is not UTF-8",
        ),
    ],
)
def test_an_unreadable_file_fails_with_its_line_and_leaves_no_cache(make_dataset, tmp_path, name, spoil, message):
    spoil(tmp_path / name)
    with pytest.raises(Failure, match=message) as raised:
        data.view(make_dataset(tmp_path / name), "pairs", "train")
    assert "\n" not in str(raised.value)
    assert cached() == []


@pytest.fixture
def tiny_disk(tmp_path):
    """Yield a disk of 64 KiB."""
    disk = tmp_path / "tiny"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_reported_and_leaves_no_cache(make_dataset, tiny_disk, monkeypatch):
    dataset = make_dataset([row(f"Question {n}?", "word " * 50) for n in range(2000)])
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tiny_disk))
    with pytest.raises(Failure, match="no space left on the disk") as raised:
        data.view(dataset, "pairs", "train")
    assert "\n" not in str(raised.value)
    assert cached() == []


def test_the_real_rows_are_read(data_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    folder = data_folder / "hh-rlhf"
    dataset = HhRlhfData(
        kind="hh_rlhf",
        train=(folder / "harmless-base.train.2000.jsonl",),
        test=(folder / "helpful-base.test.dev.jsonl",),
        learn="all",
        label_pairs=False,
        max_rows=None,
        validation=0.1,
        on_broken="reject",
        max_rejects=0.05,
    )
    report = hh_rlhf.read_report(dataset)
    assert sum(report.rows.values()) + sum(report.rejects.values()) == 2350
    assert 100 < report.rows["validation"] < 300
