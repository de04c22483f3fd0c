"""The steps of data preparation: what each changes, what it leaves unchanged, and that every row is accounted for."""

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
from alignlab.config.dataset import Augmentation, Cleaning, Masking, Selection
from alignlab.data import augment, clean, deduplicate, file_dataset, mixture, pii, select_rows
from alignlab.data.deduplicate import Repeats
from alignlab.data.ledger import Row, check_balance, run_step
from alignlab.data.rejects import RejectLog
from alignlab.data.validate import validate
from alignlab.errors import Mistake
from alignlab.pocket.annotators import prepare
from alignlab.pocket.world import data_folder


def row(prompt="Why?", *completions, number=1, split="train", truth=""):
    turns = [{"role": "user", "content": prompt}]
    return Row(f"a:{number}", turns, list(completions or ["So."]), split, "", "", Path("a"), number, truth)


def apply(step, rows):
    """Run a step and check its balance; return its rows and its tally."""
    ledger = {}
    results = list(run_step(rows, "step", step, ledger))
    check_balance(ledger)
    return results, ledger["step"]


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
def test_wrong_encodings_are_fixed_and_right_ones_are_unchanged(broken, whole):
    assert clean.fix_encoding(broken) == (whole or broken)


@given(st.text(alphabet="aé“”’ —ß", max_size=20))
def test_every_misread_text_is_restored(text):
    misread = (
        text.encode()
        .decode("latin-1")
        .translate({b: bytes([b]).decode("cp1252", "ignore") or chr(b) for b in range(128, 160)})
    )
    assert clean.fix_encoding(misread) == text


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
def test_markup_is_removed_and_code_is_not(marked, plain):
    assert clean.strip_markup(marked) == (plain or marked)


def test_spaces_are_reduced_and_letters_composed():
    assert clean.normalise_spaces("  a\u00a0 \tb \r\n\n\n\nc\u200b e\u0301 ") == "a b \n\nc é"


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


@pytest.mark.parametrize(("text", "masked"), PERSONAL)
def test_personal_data_is_masked_and_other_numbers_are_not(text, masked):
    assert pii.mask_text(text, pii.KINDS) == (masked or text)


def test_cards_and_ibans_are_checked_as_the_standards_say():
    assert pii.luhn("79927398713")
    assert not pii.luhn("79927398710")
    assert pii.mod_97("DE89 3704 0044 0532 0130 00")
    assert not pii.mod_97("DE88 3704 0044 0532 0130 00")


def test_masking_counts_hits_misses_and_false_alarms_where_the_truth_is_known():
    rows = [row("a@b.org", truth="a@b.org"), row("me at b dot org", truth="b dot org"), row("c@d.org"), row("Why?")]
    _, tally = apply(pii.mask(Masking(kinds=("email",), truth="contact")), rows)
    assert tally.notes == {"found": 1, "missed": 1, "false alarm": 1, "nothing to mask": 1}
    assert tally.changed["email"] == 2


def test_repeats_are_dropped_by_kind_and_the_first_is_kept():
    rows = [row("A?"), row("A?"), row(" a "), row("B?"), row("A?"), row("A?", "So.", "No.")]
    kept, tally = apply(deduplicate.deduplicate("near", Repeats().find), rows)
    assert [(r.prompt[0]["content"], len(r.completions)) for r in kept] == [("A?", 1), ("B?", 1), ("A?", 2)]
    assert tally.dropped == {
        "the same as the row before": 1, "nearly the same as the row before": 1, "the same as an earlier row": 1
    }  # fmt: skip
    assert len(apply(deduplicate.deduplicate("exact", Repeats().find), rows)[0]) == 4
    assert deduplicate.deduplicate("none", Repeats().find) is None


def test_deduplication_keeps_the_boundaries_of_turns():
    first, second = row("ab", "c"), row("a", "bc")
    assert len(apply(deduplicate.deduplicate("near", Repeats().find), [first, second])[0]) == 2


AUGMENT = Augmentation(seed=0, paraphrase=0.5, wrap=0.5, swap=0.5, typos=0.5)


def test_copies_are_seeded_labelled_and_only_of_training_rows():
    rows = [row(f"Should he meet the young man number {n}?", number=n) for n in range(200)]
    first, tally = apply(augment.augment(AUGMENT), rows)
    again, _ = apply(augment.augment(AUGMENT), rows[::-1])
    assert sorted(first) == sorted(again)
    assert {name: 70 < count < 130 for name, count in tally.added.items()} == dict.fromkeys(augment.AUGMENTATIONS, True)
    assert Counter(r.made_by for r in first) == Counter(tally.added) + Counter({"": 200})
    assert len({r.id for r in first}) == len(first)
    assert apply(augment.augment(AUGMENT), [r._replace(split="test") for r in rows])[0] == [
        r._replace(split="test") for r in rows
    ]
    assert augment.augment(Augmentation(seed=0, paraphrase=0, wrap=0, swap=0, typos=0)) is None


def test_a_swap_changes_all_texts_and_is_its_own_inverse():
    once = augment.swap(row("Is HE a good Man, or was she?", "His brother said so."), Random(0))
    assert once.prompt[0]["content"] == "Is SHE a good Woman, or was he?"
    assert once.completions == ["His sister said so."]
    assert augment.swap(once, Random(0)) == row("Is HE a good Man, or was she?", "His brother said so.")


def test_typos_keep_the_letters_and_frames_keep_question_and_completion():
    original = row("How do I wash a window without any soap?")
    misspelled = augment.typos(original, Random(1))
    assert sorted(misspelled.prompt[0]["content"]) == sorted(original.prompt[0]["content"])
    assert misspelled != original
    for augmentation in (augment.wrap, augment.paraphrase):
        copy = augmentation(original, Random(2))
        assert original.prompt[0]["content"] in copy.prompt[0]["content"]
        assert copy.completions == original.completions


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
    log = RejectLog("reject", 1.0)
    log.kept = len(rows)
    ledger = {}
    stream = rows
    for name, step in {
        "clean": clean.clean(Cleaning(encoding=True, markup=True, spaces=True, missing=("N/A", "null", ""))),
        "deduplicate": deduplicate.deduplicate("near", Repeats().find),
        "mask": pii.mask(Masking(kinds=tuple(pii.KINDS), truth=None)),
        "validate": validate(log),
        "augment": augment.augment(AUGMENT),
    }.items():
        stream = run_step(stream, name, step, ledger)
    out = list(stream)
    check_balance(ledger)
    tallies = list(ledger.values())
    assert tallies[0].rows_in == len(rows)
    assert tallies[-1].rows_out == len(out)
    assert all(after.rows_in == before.rows_out for before, after in pairwise(tallies))
    assert len(log.rejects) == ledger["validate"].dropped.total()


def test_a_step_that_loses_a_row_raises_an_error():
    with pytest.raises(RuntimeError, match="does not account for its rows"):
        apply(lambda rows, tally: iter(list(rows)[1:]), [row(), row()])


@pytest.fixture(params=["small", pytest.param("full", marks=pytest.mark.slow)])
def raw(request):
    """Return pocket's messy CSV as a data set, and the faults that the generator planted."""
    dataset = config("dataset=pocket_raw", f"dataset.world.size={request.param}", f"model.size={request.param}").dataset
    folder = prepare(dataset.world)
    return dataset, json.loads((folder / "raw.truth.json").read_text())


def test_every_planted_fault_of_pockets_raw_rows_is_found_and_counted(raw):
    dataset, planted = raw
    steps = file_dataset.read_report(dataset).steps
    tests = sum(1 for _ in (data_folder(dataset.world) / "demonstrations.test.jsonl").open())
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


def test_the_prepared_rows_of_the_raw_table_are_clean(raw):
    dataset, _ = raw
    texts = [
        r["prompt"][0]["content"] + r["completion"]
        for s in ("train", "validation")
        for r in data.view(dataset, "demonstrations", s)
    ]
    assert not any(
        fault in text for text in texts for fault in ("<", "&nbsp;", "â€", "@example", "10.0.0.", "+1 555", "  ")
    )
    assert len(texts) == len({deduplicate.normalise(text) for text in texts})


def mixed(weights, *rows):
    paths = [Path("a"), Path("b")]
    return apply(mixture.mix(paths, weights), rows)


def test_weights_drop_and_repeat_training_rows_and_leave_test_rows():
    inside = row("Is it?")._replace(file=Path("b/part.csv"))
    outside, held = row("Was it?"), row("Will it?", split="test")
    rows, tally = mixed((0.0, 2.0), inside, outside, held)
    assert [row.id for row in rows] == ["a:1", "a:1*2", "a:1"]
    assert [row.prompt for row in rows] == [inside.prompt, inside.prompt, held.prompt]
    assert (dict(tally.added), dict(tally.dropped)) == (
        {"repeated by dataset.weights": 1}, {"left out by dataset.weights": 1},
    )  # fmt: skip


def test_a_fractional_weight_takes_all_rows_of_a_share_of_the_questions():
    rows = [row(f"Is number {n // 2} prime indeed?", f"Answer {n}.", number=n) for n in range(2_000)]
    taken, _ = mixed((0.25, 1.0), *rows)
    questions = Counter(row.prompt[0]["content"] for row in taken)
    assert set(questions.values()) == {2}
    assert 210 <= len(questions) <= 290  # of 1,000 questions; five standard deviations are 68
    assert mixed((0.25, 1.0), *rows[::-1])[0] == taken[::-1]  # the order of rows changes nothing


def test_a_selection_keeps_the_rows_of_its_path_that_match():
    def pair(question, chosen, rejected, **changed):
        return row(question)._replace(completions=[chosen, rejected], **changed)

    kept = pair("Help me steal.", "Sorry, no.", "Sure.")
    others = [
        pair("Help me steal.", "Sure.", "Sorry, no."),
        pair("Help me cook.", "Sorry, no.", "Sure."),
        pair("Help me steal.", "Sorry, no.", "sorry!"),
        kept._replace(prompt=[*kept.prompt, {"role": "assistant", "content": "Why?"}, *kept.prompt]),
    ]
    free = [pair("Cook.", "Sure.", "No.", file=Path("b/x")), pair("Cook.", "Sure.", "No.", split="test")]
    selection = Selection(prompt="STEAL", chosen="^sorry", rejected="^(?!sorry)", turns=1)
    step = select_rows.select([Path("a"), Path("b")], [selection, None])
    rows, tally = apply(step, (kept, *others, *free))
    assert rows == [kept, *free]
    assert dict(tally.dropped) == {"left out by dataset.select": 4}


def test_a_pattern_that_is_no_regular_expression_is_a_mistake():
    with pytest.raises(Mistake, match=r"dataset.select.0.chosen: '\(': missing \)"):
        config("dataset=file", "dataset.path=.", "dataset.select=[{chosen:'('}]", "task=prepare")


def test_another_number_of_weights_than_paths_is_a_mistake():
    with pytest.raises(Mistake, match=r"dataset.weights: 2 weights for 1 paths; give one for each path"):
        config("dataset=file", "dataset.path=.", "dataset.weights=[1,2]", "task=prepare")
