"""The steps between raw and ready: what each finds, what it leaves alone, and that no row is lost without a word."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from command import config
from hypothesis import given, settings
from hypothesis import strategies as st

from alignlab import data
from alignlab.config.dataset import Augmentation, Cleaning, Masking
from alignlab.data import augment, clean, deduplicate, file_dataset, mixture, pii
from alignlab.data.jsonl import Account
from alignlab.data.ledger import Row, check, through
from alignlab.data.validate import validate
from alignlab.pocket.annotators import prepare
from alignlab.pocket.world import data_folder


def row(prompt="Why?", *completions, number=1, split="train", truth=""):
    turns = [{"role": "user", "content": prompt}]
    return Row(f"a:{number}", turns, list(completions or ["So."]), split, "", "", Path("a"), number, truth)


def done(step, rows, ledger=None):
    """What a step gives, and its tally, once the ledger has balanced."""
    ledger = {} if ledger is None else ledger
    found = list(through(rows, "step", step, ledger))
    check(ledger)
    return found, ledger["step"]


MISREAD = [
    ("â€œHello.â€™", "“Hello.’"),
    ("cafÃ© and crÃ¨me", "café and crème"),
    ("ðŸ˜€", "😀"),
    ("5 Â£", "5 £"),
    ("café “is” right, Ã alone stays", None),
    ("ÃÂ of nothing", None),
    ("naïve Straße, 日本語", None),
]


@pytest.mark.parametrize(("broken", "whole"), MISREAD)
def test_misread_encodings_are_read_again_and_right_ones_are_left(broken, whole):
    assert clean.encoding(broken) == (whole or broken)


@given(st.text(alphabet="aé“”’ —ß", max_size=20))
def test_what_was_misread_comes_back(text):
    misread = (
        text.encode()
        .decode("latin-1")
        .translate({b: bytes([b]).decode("cp1252", "ignore") or chr(b) for b in range(128, 160)})
    )
    assert clean.encoding(misread) == text


MARKUP = [
    ("<p>Take the saw.</p>", "Take the saw."),
    ("<b>Yes.</b><br/>", "Yes."),
    ("Yes.&nbsp;<a href='#'>more</a>", "Yes.\u00a0more"),
    ("one<br>two", "one\ntwo"),
    ("a<script>alert('x')</script>b", "ab"),
    ("Tom &amp; Ann &lt;3 &#169;", "Tom & Ann <3 ©"),
    ("#include <stdio.h>; if (a < b && c > d) x<y>z", None),
    ("AT&T; R&D; generics<T>", None),
]


@pytest.mark.parametrize(("marked", "plain"), MARKUP)
def test_markup_goes_and_code_stays(marked, plain):
    assert clean.markup(marked) == (plain or marked)


def test_blanks_and_letters_are_made_one():
    assert clean.spaces("  a\u00a0 \tb \r\n\n\n\nc\u200b e\u0301 ") == "a b \n\nc é"


PERSONAL = [
    ("Write to maria.lopez@example.org.", "Write to [email]."),
    ("Call +1 555 0136 or (555) 123-4567 now", "Call [phone] or [phone] now"),
    ("It is 10.0.0.255, not 1.2.3 or 999.1.1.1 or 1.2.3.4.5", "It is [ip], not 1.2.3 or 999.1.1.1 or 1.2.3.4.5"),
    ("Card 4111 1111 1111 1111, not 4111 1111 1111 1112", "Card [card], not 4111 1111 1111 1112"),
    ("IBAN GB82 WEST 1234 5698 7654 32, not GB83 WEST 1234 5698 7654 32",
     "IBAN [iban], not GB83 WEST 1234 5698 7654 32"),
    ("SSN 078-05-1120, not 000-12-3456", "SSN [ssn], not 000-12-3456"),
    ("In 1984, 2 + 2 = 4, pi is 3.14159265358979, 1,000,000 people; @home; a@b", None),
    ("Version 2.13.0 of 2026-11-20 at 12:30:45, lines 100-200, call 911", None),
]  # fmt: skip


@pytest.mark.parametrize(("said", "hidden"), PERSONAL)
def test_personal_data_is_masked_and_other_numbers_are_not(said, hidden):
    assert pii.masked(said, pii.KINDS) == (hidden or said)


def test_the_checks_of_cards_and_accounts_are_those_of_the_standards():
    assert pii.luhn("79927398713")
    assert not pii.luhn("79927398710")
    assert pii.mod_97("DE89 3704 0044 0532 0130 00")
    assert not pii.mod_97("DE88 3704 0044 0532 0130 00")


def test_masking_tells_recall_and_false_alarms_where_the_truth_is_known():
    rows = [row("a@b.org", truth="a@b.org"), row("me at b dot org", truth="b dot org"), row("c@d.org"), row("Why?")]
    _, tally = done(pii.mask(Masking(kinds=("email",), truth="contact")), rows)
    assert tally.notes == {"found": 1, "missed": 1, "false alarm": 1, "left alone, rightly": 1}
    assert tally.changed["email"] == 2


def test_repeats_are_dropped_by_kind_and_the_first_is_kept():
    rows = [row("A?"), row("A?"), row(" a "), row("B?"), row("A?"), row("A?", "So.", "No.")]
    kept, tally = done(deduplicate.deduplicate("near"), rows)
    assert [(r.prompt[0]["content"], len(r.completions)) for r in kept] == [("A?", 1), ("B?", 1), ("A?", 2)]
    assert tally.dropped == {
        "the same as the row before": 1, "nearly the same as the row before": 1, "the same as an earlier row": 1
    }  # fmt: skip
    assert len(done(deduplicate.deduplicate("exact"), rows)[0]) == 4
    assert deduplicate.deduplicate("none") is None


def test_words_do_not_run_into_the_next_turn_when_rows_are_compared():
    first, second = row("ab", "c"), row("a", "bc")
    assert len(done(deduplicate.deduplicate("near"), [first, second])[0]) == 2


AUGMENT = Augmentation(seed=0, paraphrase=0.5, wrap=0.5, swap=0.5, typos=0.5)


def test_copies_are_seeded_marked_and_made_of_training_rows_alone():
    rows = [row(f"Should he meet the young man number {n}?", number=n) for n in range(200)]
    first, tally = done(augment.augment(AUGMENT), rows)
    again, _ = done(augment.augment(AUGMENT), rows[::-1])
    assert sorted(first) == sorted(again)
    assert {way: 70 < count < 130 for way, count in tally.added.items()} == dict.fromkeys(augment.WAYS, True)
    assert Counter(r.made_by for r in first) == Counter(tally.added) + Counter({"": 200})
    assert len({r.id for r in first}) == len(first)
    assert done(augment.augment(AUGMENT), [r._replace(split="test") for r in rows])[0] == [
        r._replace(split="test") for r in rows
    ]
    assert augment.augment(Augmentation(seed=0, paraphrase=0, wrap=0, swap=0, typos=0)) is None


def test_a_swap_changes_people_everywhere_and_twice_is_back():
    once = augment.swap(row("Is HE a good Man, or was she?", "His brother said so."), Random(0))
    assert once.prompt[0]["content"] == "Is SHE a good Woman, or was he?"
    assert once.completions == ["His sister said so."]
    assert augment.swap(once, Random(0)) == row("Is HE a good Man, or was she?", "His brother said so.")


def test_a_slip_keeps_the_letters_and_a_wrapper_keeps_question_and_answer():
    asked = row("How do I wash a window without any soap?")
    slipped = augment.typos(asked, Random(1))
    assert sorted(slipped.prompt[0]["content"]) == sorted(asked.prompt[0]["content"])
    assert slipped != asked
    for way in (augment.wrap, augment.paraphrase):
        made = way(asked, Random(2))
        assert asked.prompt[0]["content"] in made.prompt[0]["content"]
        assert made.completions == asked.completions


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            lambda text, answers, split, n: row(text, *answers, split=split, number=n),
            st.sampled_from(["", "null", "Why?", "why", "<p>A</p>", "a@b.org", "Ã©", "\ud800", "he"])
            | st.text(max_size=9),
            st.lists(st.sampled_from(["", "So.", "No.", "<b>So.</b>", "N/A"]), max_size=3),
            st.sampled_from(["train", "test"]),
            st.integers(0, 99),
        )
    )
)  # fmt: skip
def test_rows_in_and_added_are_rows_out_and_dropped_at_every_step(rows):
    account = Account("reject", 1.0)
    account.kept = len(rows)
    ledger = {}
    stream = rows
    for name, step in {
        "clean": clean.clean(Cleaning(encoding=True, markup=True, spaces=True, missing=("N/A", "null", ""))),
        "deduplicate": deduplicate.deduplicate("near"),
        "mask": pii.mask(Masking(kinds=tuple(pii.KINDS), truth=None)),
        "validate": validate({"train": account, "test": account}),
        "augment": augment.augment(AUGMENT),
    }.items():
        stream = through(stream, name, step, ledger)
    out = list(stream)
    check(ledger)
    tallies = list(ledger.values())
    assert tallies[0].rows_in == len(rows)
    assert tallies[-1].rows_out == len(out)
    assert all(after.rows_in == before.rows_out for before, after in pairwise(tallies))
    assert len(account.rejects) == ledger["validate"].dropped.total()


def test_a_step_that_loses_a_row_is_a_bug_that_is_found():
    with pytest.raises(RuntimeError, match="does not account for its rows"):
        done(lambda rows, tally: iter(list(rows)[1:]), [row(), row()])


@pytest.fixture(params=["small", pytest.param("full", marks=pytest.mark.slow)])
def raw(request):
    """Pocket's messy CSV as a data set, and what the generator says that it planted."""
    made = config("dataset=pocket_raw", f"dataset.world.size={request.param}", f"model.size={request.param}").dataset
    folder = prepare(made.world)
    return made, json.loads((folder / "raw.truth.json").read_text())


def test_every_planted_fault_of_pockets_raw_rows_is_found_and_counted(raw):
    made, planted = raw
    steps = file_dataset.report(made).steps
    tests = sum(1 for _ in (data_folder(made.world) / "demonstrations.test.jsonl").open())
    assert steps["read"]["rows_in"] == planted["rows"] + tests
    cleaned, dropped = steps["clean"], steps["deduplicate"]["dropped"]
    assert {
        "markup": cleaned["changed"]["markup"],
        "broken_encoding": cleaned["changed"]["encoding"],
        "missing_fields": sum(cleaned["dropped"].values()),
        "duplicates": dropped["the same as the row before"],
        "near_duplicates": dropped["nearly the same as the row before"],
        "personal_data": sum(steps["mask"]["changed"].values()),
        "rows": planted["rows"],
    } == planted
    notes = steps["mask"]["notes"]
    assert (notes["found"], notes.get("missed"), notes.get("false alarm")) == (planted["personal_data"], None, None)


def test_what_comes_out_of_the_raw_rows_is_clean(raw):
    made, _ = raw
    texts = [
        r["prompt"][0]["content"] + r["completion"]
        for s in ("train", "validation")
        for r in data.view(made, "demonstrations", s)
    ]
    assert not any(
        mark in text for text in texts for mark in ("<", "&nbsp;", "â€", "@example", "10.0.0.", "+1 555", "  ")
    )
    assert len(texts) == len({deduplicate.roughly(text) for text in texts})


def mixed(weights, *rows):
    paths = [Path("a"), Path("b")]
    return done(mixture.mix(paths, weights), rows)


def test_weights_take_rows_never_once_twice_and_leave_what_is_measured_on():
    inside = row("Is it?")._replace(file=Path("b/part.csv"))
    outside, held = row("Was it?"), row("Will it?", split="test")
    found, tally = mixed((0.0, 2.0), inside, outside, held)
    assert [one.id for one in found] == ["a:1", "a:1*2", "a:1"]
    assert [one.prompt for one in found] == [inside.prompt, inside.prompt, held.prompt]
    assert (dict(tally.added), dict(tally.dropped)) == (
        {"taken again by dataset.weights": 1}, {"left out by dataset.weights": 1},
    )  # fmt: skip


def test_a_part_of_the_questions_is_taken_with_all_their_rows():
    rows = [row(f"Is number {n // 2} prime indeed?", f"Answer {n}.", number=n) for n in range(2_000)]
    found, _ = mixed((0.25, 1.0), *rows)
    asked = Counter(one.prompt[0]["content"] for one in found)
    assert set(asked.values()) == {2}
    assert 210 <= len(asked) <= 290  # of 1,000 questions; five standard deviations are 68
    assert mixed((0.25, 1.0), *rows[::-1])[0] == found[::-1]  # the order of rows changes nothing


def test_weights_that_are_not_one_a_path_are_a_mistake():
    from alignlab.errors import Mistake

    with pytest.raises(Mistake, match=r"dataset.weights: 2 weights for 1 paths; give one for each path"):
        config("dataset=file", "dataset.path=.", "dataset.weights=[1,2]", "task=prepare")
