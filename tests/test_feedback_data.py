"""Feedback of the store as training data: pairs, demonstrations and labels; caps, consensus, held-out parts, counts."""

from collections import Counter
from functools import cache

import pytest
from command import config

from alignlab.data import content, view
from alignlab.errors import Failure
from alignlab.preferences import feedback
from alignlab.preferences.feedback import Judgement
from alignlab.runtime.process_state import restored
from alignlab.runtime.run_files import CARD
from alignlab.serving.store import dataset as snapshots
from alignlab.serving.store import items, records
from alignlab.serving.store.records import Answer, User, add_answer
from alignlab.serving.store.store import Store

USERS = [User(f"user{n}", "label") for n in range(6)]


def turns(text):
    return [{"role": "user", "content": text}]


def ask(store, number):
    """Store an answer to a question of its own; return its id."""
    answer = Answer(
        f"a{number}", "user0", "tiny", "v1", turns(f"question number {number}"), f"answer {number}", "stop", {}
    )
    store.writer.submit(lambda c: add_answer(c, answer, True)).result()
    return answer.id


def give(store, user, subject, value, kind="answer"):
    store.writer.submit(lambda c: records.give_feedback(c, user, kind, subject, value, None)).result()


def compare(store, number):
    """Store two answers to compare; return the item's id and the ids of the answers."""
    sides = [
        {"answer_id": f"{side}{number}", "completion": f"{side} {number}", "model": "m", "version": "v"}
        for side in "xy"
    ]
    add = lambda c: items.add_item(c, USERS[0], "compare", turns(f"comparison number {number}"), sides, "", True)  # noqa: E731
    return store.writer.submit(add).result()["id"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "feedback.db"
    store = Store(str(path))
    for number in range(6):
        answer = ask(store, number)
        for user in USERS[:3]:  # one of three calls odd answers good, and nobody even ones; all say the kind of harm
            good = number % 2 == 1 and user != USERS[0]
            give(store, user, answer, {"thumb": "up"} if good else {"thumb": "down", "categories": ["hate"]})
        item = compare(store, number)
        give(store, USERS[number], item, {"choice": f"y{number}"}, "compare")
    corrected = ask(store, 6)
    give(store, USERS[3], corrected, {"correction": "a better one"})
    store.close()
    with restored():  # the snapshot of a command is a variable of the environment
        yield path


@cache
def settings():
    return config("method=dpo", "model=scratch", "dataset=feedback").dataset


def data(place, **more):
    whole = {"test": 0.0, "validation": 0.0, "max_share": 1.0}
    return settings().model_copy(update={"store": str(place), **whole, **more})


def test_comparisons_and_corrections_are_pairs_verdicts_are_labels_and_corrections_demonstrations(place):
    pairs = {(row["chosen"], row["rejected"]) for row in view(data(place), "pairs", "train")}
    assert pairs == {(f"y {n}", f"x {n}") for n in range(6)} | {("a better one", "answer 6")}
    labels = {row["completion"]: (row["desirable"], row["harms"]) for row in view(data(place), "labels", "train")}
    assert labels == {f"answer {n}": (n % 2 == 1, [] if n % 2 else ["hate"]) for n in range(6)}  # two of three decide
    demonstrations = {row["completion"] for row in view(data(place), "demonstrations", "train")}
    assert demonstrations == {"a better one", "answer 1", "answer 3", "answer 5"}  # not those that won a comparison


def test_agreement_weighs_a_label(place):
    """Three of three agree on even answers, two of three on odd ones: 2p - 1 is 1 and 1/3, scaled to a mean of 1."""
    weights = {row["completion"]: row["weight"] for row in view(data(place), "labels", "train")}
    assert weights["answer 0"] == pytest.approx(1.5)
    assert weights["answer 1"] == pytest.approx(0.5)


def test_a_command_reads_one_snapshot_and_the_next_one_what_was_added(place, monkeypatch):
    dataset = data(place)
    before = content(dataset)
    store = Store(str(place))
    give(store, USERS[4], ask(store, 7), {"thumb": "up"})
    store.close()
    snapshots.fetch(dataset)
    assert content(dataset) == before
    monkeypatch.delenv(snapshots.variable_of(dataset))  # as after each command
    assert content(dataset) != before
    assert content(data(place, snapshot=before)) == before
    assert "26 records of 6 users" in (snapshots.snapshot(dataset) / CARD).read_text()


def test_a_store_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Failure, match=r"dataset.store: .*nowhere.db is not there"):
        content(data(tmp_path / "nowhere.db"))


def judgement(user, number, first=True, source="verdict"):
    return Judgement(source, user, f"{user}-{number}", turns(f"prompt {number}"), (f"answer {number}",), first, ())


def test_no_user_has_more_than_the_largest_share():
    """90 of one user, 5 of each of four: the largest c with c <= ceil(0.4 * (c + 20)) is 14."""
    given = [judgement("many", n) for n in range(90)] + [judgement(f"u{u}", n) for u in range(4) for n in range(5)]
    aside = Counter()
    kept = Counter(each.user for each in feedback.cap_users(given, 0.4, aside))
    assert kept == {"many": 14, "u0": 5, "u1": 5, "u2": 5, "u3": 5}
    assert aside == {"above a user's largest share": 76}


def test_users_with_other_thumbs_are_outliers():
    given = [judgement(f"u{u}", n) for u in range(3) for n in range(10)]
    assert feedback.outliers([*given, *(judgement("troll", n, first=False) for n in range(10))]) == {"troll"}
    assert feedback.outliers(given) == set()


def test_what_a_held_out_user_says_is_measured_on_and_never_trained_on(place):
    held_out = data(place, held_out_users=0.4, test=0.3)
    users = feedback.held_out_users({user.name for user in USERS}, 0.4)
    report = snapshots.read_report(held_out)
    rows = sum(report.aside.values()) + sum(report.rows.values())
    assert users
    assert report.aside["of a held-out user, on prompts that are trained on"] > 0
    assert report.rows["test"] > 0
    assert rows <= report.feedback == 25
