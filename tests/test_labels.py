"""The view `labels`: files of other projects, pairs, ties, weights, harms, and labelled rows in other views."""

import json
from functools import cache

import pytest
from command import config

from alignlab.data import view
from alignlab.errors import Mistake

QUESTION, ANSWER = "What is {}?", "It is {}."
FILES = {
    "trl": lambda n, good: {
        "prompt": [{"role": "user", "content": QUESTION.format(n)}],
        "completion": [{"role": "assistant", "content": ANSWER.format(n)}],
        "label": good,
    },
    "llama_factory": lambda n, good: {
        "messages": [
            {"role": "user", "content": QUESTION.format(n)},
            {"role": "assistant", "content": ANSWER.format(n)},
        ],
        "label": good,  # as in its kto_en_demo.json; its template of a data set calls the column kto_tag
    },
    "colossal_chat": lambda n, good: {
        "prompt": [{"from": "user", "content": QUESTION.format(n)}],
        "completion": {"from": "assistant", "content": ANSWER.format(n)},
        "label": good,
    },
    "beaver_tails": lambda n, good: {
        "prompt": QUESTION.format(n),
        "response": ANSWER.format(n),
        "category": {"violence": not good, "hate": False},
        "is_safe": good,
    },
}


@cache
def settings():
    return config("method=sft", "model=scratch", "dataset=file", f"dataset.path={__file__}").dataset


def read(path, rows, name="labels", **more):
    """Write rows to a file and return a view of them."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = settings().model_copy(update={"path": (path,), "test": 0.0, "validation": 0.0, **more})
    return view(dataset, name, "train").to_list()


@pytest.mark.parametrize("name", FILES)
def test_labels_are_read_from_files_of_other_projects(tmp_path, name):
    rows = [FILES[name](n, n % 2 == 0) for n in range(6)]
    labels = read(tmp_path / "rows.jsonl", rows)
    assert [row["prompt"] for row in labels] == [[{"role": "user", "content": QUESTION.format(n)}] for n in range(6)]
    assert [(row["completion"], row["desirable"]) for row in labels] == [
        (ANSWER.format(n), n % 2 == 0) for n in range(6)
    ]
    harms = [["violence"] * (n % 2) for n in range(6)] if name == "beaver_tails" else [None] * 6
    assert [row.get("harms") for row in labels] == harms
    demonstrations = read(tmp_path / "rows.jsonl", rows, "demonstrations")
    assert [row["completion"] for row in demonstrations] == [ANSWER.format(n) for n in (0, 2, 4)]  # no bad answers


PAIRS = [
    {"prompt": "a", "chosen": "good a", "rejected": "bad a", "label": 0.75},
    {"prompt": "b", "chosen": "good b", "rejected": "bad b"},
    {"prompt": "c", "chosen": "one", "rejected": "other", "label": 0.5},
]


def test_pairs_give_labels_by_a_setting_and_a_soft_label_weighs_less(tmp_path):
    """2p - 1 is 0.5 for the first pair, 1 for the second and 0 for the tie, which is left out; the mean is 1."""
    labels = read(tmp_path / "rows.jsonl", PAIRS, label_pairs=True)
    seen = [(row["completion"], row["desirable"], pytest.approx(row["weight"])) for row in labels]
    assert seen == [("good a", True, 2 / 3), ("bad a", False, 2 / 3), ("good b", True, 4 / 3), ("bad b", False, 4 / 3)]
    with pytest.raises(Mistake, match=r"its rows hold pairs, and no labels; set dataset\.label_pairs=true"):
        read(tmp_path / "rows.jsonl", PAIRS)


def test_the_same_answer_may_be_good_to_one_and_bad_to_another(tmp_path):
    rows = [FILES["trl"](1, good) for good in (True, False, True)]
    assert [row["desirable"] for row in read(tmp_path / "rows.jsonl", rows)] == [True, False]  # repeats are dropped


def test_the_weights_of_labels_are_refused_as_demonstrations(tmp_path):
    rows = [FILES["trl"](n, True) | {"weight": 1 + n} for n in range(3)]
    assert [row["weight"] for row in read(tmp_path / "rows.jsonl", rows)] == pytest.approx([0.5, 1.0, 1.5])
    with pytest.raises(Mistake, match="its good answers have weights"):
        read(tmp_path / "rows.jsonl", rows, "demonstrations")


def test_transcripts_of_hh_rlhf_give_labels(tmp_path):
    rows = [{side: f"\n\nHuman: q{n}\n\nAssistant: {side} {n}" for side in ("chosen", "rejected")} for n in range(3)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    test = tmp_path / "test.jsonl"
    test.write_text(json.dumps({side: f"\n\nHuman: t\n\nAssistant: {side}" for side in ("chosen", "rejected")}) + "\n")
    paths = [f"dataset.train={file}", f"dataset.test={test}", "dataset.validation=0", "dataset.label_pairs=true"]
    dataset = config("method=sft", "model=scratch", "dataset=hh_rlhf", *paths).dataset
    labels = [(row["completion"], row["desirable"]) for row in view(dataset, "labels", "train")]
    assert labels == [(f"{side} {n}", side == "chosen") for n in range(3) for side in ("chosen", "rejected")]
