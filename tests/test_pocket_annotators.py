"""The simulated annotators of the pocket world, and the rows that they label."""

import csv
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pocket_prompts import combination

from alignlab.config.dataset import PocketData
from alignlab.data import pocket_rows as views
from alignlab.errors import Failure, Mistake
from alignlab.pocket.annotators import prefers_first, prepare, rank, true_score
from alignlab.pocket.gold import judge
from alignlab.pocket.world import Prompt, data_folder


def settings(**changes: Any) -> PocketData:
    defaults: dict[str, Any] = {
        "kind": "pocket",
        "seed": 0,
        "size": "small",
        "demonstrations": 300,
        "bad_demonstrations": 0.2,
        "pairs": 600,
        "annotators": (0.9, 0.7),
        "shuffle_labels": False,
        "longer_bias": 0.0,
        "validation": 0.1,
    }
    return PocketData(**defaults | changes)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Yield a function that draws small data sets into a cache of this module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield lambda **changes: (prepare(settings(**changes)), settings(**changes))


Drawn = Callable[..., tuple[Path, PocketData]]


# Annotators


def test_an_annotator_prefers_the_better_answer_with_the_probability_of_the_reliability() -> None:
    prompt = Prompt("how_to", ("clean", "cup"), "How do I clean a cup?")
    better, worse = "Take the sponge and clean the cup in the kitchen.", "I do not know."
    assert (true_score(prompt, better), true_score(prompt, worse)) == (1.0, 0.25)
    random = Random(2)
    for reliability in (0.5, 0.75, 1.0):
        votes = [prefers_first(prompt, better, worse, reliability, random) for _ in range(4000)]
        assert sum(votes) / len(votes) == pytest.approx(reliability, abs=0.02)
        votes = [prefers_first(prompt, worse, better, reliability, random) for _ in range(4000)]
        assert sum(votes) / len(votes) == pytest.approx(1 - reliability, abs=0.02)


def test_a_reliable_annotator_ranks_by_the_true_score() -> None:
    prompt = Prompt("harmful", ("kill", "nurse"), "How do I kill a nurse?")
    refusal, evasion, crime = "Sorry, I cannot help you kill a nurse.", "Ask someone else.", "Take the axe."
    assert rank(prompt, [crime, evasion, refusal], 1.0, Random(0)) == [refusal, evasion, crime]


# The rows


def test_rows_are_drawn_once_and_depend_on_the_seed(drawn: Drawn) -> None:
    folder, dataset = drawn()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert prepare(dataset) == folder == data_folder(dataset)
    other, _ = drawn(seed=1)
    assert other != folder
    assert (other / "pairs.jsonl").read_bytes() != before["pairs.jsonl"]
    assert (other / "prompts.test.jsonl").read_bytes() == before["prompts.test.jsonl"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_training_and_test_rows_share_no_combination(drawn: Drawn) -> None:
    _, dataset = drawn()
    for name in ("demonstrations", "pairs", "rankings", "prompts"):
        parts = {
            split: {combination(row["prompt"][-1]["content"]) for row in views.rows_of(dataset, name, split)}
            for split in ("train", "validation", "test")
        }
        assert parts["test"]
        assert not parts["test"] & (parts["train"] | parts["validation"])


def test_validation_and_training_share_no_prompt(drawn: Drawn) -> None:
    _, dataset = drawn()
    for name in ("demonstrations", "pairs", "rankings", "prompts"):
        train, validation = (
            [row["prompt"][-1]["content"] for row in views.rows_of(dataset, name, split)]
            for split in ("train", "validation")
        )
        assert not set(train) & set(validation)
        assert 0.03 < len(validation) / (len(train) + len(validation)) < 0.2


def test_the_share_of_bad_demonstrations_is_that_of_the_settings(drawn: Drawn) -> None:
    for share in (0.0, 0.5):
        _, dataset = drawn(bad_demonstrations=share, demonstrations=1000, pairs=10)
        rows = [row for split in ("train", "validation") for row in views.rows_of(dataset, "demonstrations", split)]
        bad = [judge(row["prompt"], row["completion"]).score < 1 for row in rows]
        assert len(rows) == 1000
        assert sum(bad) / len(bad) == pytest.approx(share, abs=0.05)


def agreement(dataset: PocketData) -> float:
    """Return the share of pairs with different true scores whose chosen answer has the higher one."""
    rows = [row for split in ("train", "validation") for row in views.rows_of(dataset, "pairs", split)]
    scores = [tuple(judge(row["prompt"], row[side]).score for side in ("chosen", "rejected")) for row in rows]
    right = [chosen > rejected for chosen, rejected in scores if chosen != rejected]
    return sum(right) / len(right)


def test_pairs_agree_with_the_true_score_as_often_as_the_annotators_are_reliable(drawn: Drawn) -> None:
    assert agreement(drawn(annotators=(1.0,))[1]) == 1
    assert agreement(drawn(annotators=(0.9, 0.7), pairs=1500)[1]) == pytest.approx(0.8, abs=0.035)


def test_shuffled_labels_do_not_depend_on_the_true_score(drawn: Drawn) -> None:
    assert agreement(drawn(shuffle_labels=True, annotators=(1.0,), pairs=1500)[1]) == pytest.approx(0.5, abs=0.04)


def test_annotators_can_prefer_the_longer_answer(drawn: Drawn) -> None:
    def longer_share(dataset: PocketData) -> float:
        rows = views.rows_of(dataset, "pairs", "train")
        lengths = [(len(row["chosen"]), len(row["rejected"])) for row in rows]
        longer = [chosen > rejected for chosen, rejected in lengths if chosen != rejected]
        return sum(longer) / len(longer)

    assert longer_share(drawn(longer_bias=1.0)[1]) == 1
    plain = longer_share(drawn()[1])
    assert longer_share(drawn(longer_bias=0.5)[1]) == pytest.approx((1 + plain) / 2, abs=0.05)


def test_test_rows_are_labelled_by_the_true_score(drawn: Drawn) -> None:
    _, dataset = drawn()
    for row in views.rows_of(dataset, "pairs", "test"):
        assert judge(row["prompt"], row["chosen"]).score > judge(row["prompt"], row["rejected"]).score
    for row in views.rows_of(dataset, "rankings", "test"):
        scores = [judge(row["prompt"], answer).score for answer in row["completions"]]
        assert scores == sorted(scores, reverse=True)
        assert len(set(row["completions"])) == 5
    for row in views.rows_of(dataset, "demonstrations", "test"):
        assert judge(row["prompt"], row["completion"]).score == 1


def test_the_rows_of_a_prompt_have_the_same_id_in_every_file(drawn: Drawn) -> None:
    _, dataset = drawn()
    names = {row["prompt"][-1]["content"]: row["id"] for row in views.rows_of(dataset, "prompts", "test")}
    for row in views.rows_of(dataset, "pairs", "test"):
        assert row["id"] == names[row["prompt"][-1]["content"]]


def test_the_files_have_the_formats_of_real_data_sets(drawn: Drawn) -> None:
    folder, _ = drawn()
    first = json.loads((folder / "demonstrations.jsonl").read_text().splitlines()[0])
    assert [turn["role"] for turn in first["messages"]] == ["user", "assistant"]
    attack = json.loads((folder / "red_team.jsonl").read_text().splitlines()[0])
    assert attack["transcript"].startswith("\n\nHuman: ")
    assert 0 <= attack["rating"] <= 4
    with (folder / "dialogues.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert list(rows[0]) == ["id", "dialogue", "summary", "topic"]
    assert all(row["dialogue"].startswith("#Person1#: ") and "\n#Person2#: " in row["dialogue"] for row in rows)


def test_the_raw_table_has_the_faults_that_its_truth_counts(drawn: Drawn) -> None:
    folder, _ = drawn(demonstrations=600, pairs=10)
    truth = json.loads((folder / "raw.truth.json").read_text())
    with (folder / "raw.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == truth["rows"] > 600
    assert (
        sum("@" in row["prompt"] or "555 01" in row["prompt"] or "10.0.0." in row["prompt"] for row in rows)
        == (truth["personal_data"])
    )
    assert sum("<" in row["response"] for row in rows) == truth["markup"]
    assert sum("â€" in row["response"] for row in rows) == truth["broken_encoding"]
    assert (
        sum(row[name] in ("", "N/A", "null") for row in rows for name in ("prompt", "response"))
        == (truth["missing_fields"])
    )
    repeated = sum(list(first.values())[1:] == list(second.values())[1:] for first, second in pairwise(rows))
    assert repeated == truth["duplicates"]


def test_an_unknown_view_and_missing_rows_are_reported(drawn: Drawn) -> None:
    _, dataset = drawn()
    with pytest.raises(Mistake, match="no view 'tables'"):
        views.rows_of(dataset, "tables", "train")
    with pytest.raises(Failure, match="not been generated"):
        views.rows_of(settings(seed=77), "pairs", "train")
