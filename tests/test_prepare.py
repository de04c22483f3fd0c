"""`task=prepare`: the set that is written, the card that tells of it, and the page that shows it."""

import json
from collections import Counter
from pathlib import Path

from command import config

from alignlab import data
from alignlab.config.dataset import FileData
from alignlab.data.contamination import Contamination, contamination
from alignlab.data.language_id import guess
from alignlab.pipeline.prepare_inputs import report_contamination
from alignlab.reports import data_card
from alignlab.tasks import prepare


def row(prompt, *completions, **more):
    turns = [{"role": "user", "content": prompt}] if prompt else []
    return {"id": prompt, "kind": "", "made_by": "", "prompt": turns, "completions": list(completions), **more}


def prepared(tmp_path, capsys, rows, *settings):
    """Run the task on rows; gives its folder and what it printed."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = config("task=prepare", "dataset=file", f"dataset.path={tmp_path / 'rows.jsonl'}", *settings)
    prepare.run(made, tmp_path / "out", {"dataset": "file"})
    return tmp_path / "out", capsys.readouterr().out


EVIL = "</p><script>alert('x')</script>"


def test_the_card_counts_what_came_in_and_the_page_escapes_it(tmp_path, capsys):
    rows = [{"prompt": f"What is the number {n} of {EVIL}?", "completion": f"It is {n}."} for n in range(200)]
    rows += [rows[0], {"prompt": EVIL, "completion": 3}]
    folder, said = prepared(tmp_path, capsys, rows)
    facts = json.loads((folder / "card.json").read_text())
    assert sum(facts["rows"].values()) == 200
    assert facts["steps"]["read"]["dropped"] == {"completion: the field is a number": 1}
    assert facts["steps"]["deduplicate"]["dropped"] == {"the same as an earlier row": 1}
    page = (folder / "card.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "rows.jsonl:202" in page
    assert "http" not in page.replace("http-equiv", "")
    assert said.splitlines()[-1] == str(folder / "card.html")
    assert Path(said.splitlines()[-1]).exists()


def test_what_is_written_can_be_read_again_and_says_the_same(tmp_path, capsys):
    rows = [
        *({"prompt": f"Question number {n}?", "completion": "So."} for n in range(40)),
        *({"prompt": f"Pair number {n}?", "chosen": "So.", "rejected": "No."} for n in range(5)),
    ]
    folder, _ = prepared(tmp_path, capsys, rows[:40], "dataset.validation=0", "dataset.test=0")
    given = config("dataset=file", f"dataset.path={folder / 'data' / 'train'}", "model=scratch").dataset
    again = FileData(**{**dict(given), "validation": 0.0, "test": 0.0})
    read = data.view(again, "demonstrations", "train")
    assert [(r["prompt"], r["completion"]) for r in read] == [
        ([{"role": "user", "content": one["prompt"]}], "So.") for one in rows[:40]
    ]


def test_every_form_is_written_in_a_shape_that_is_recognised():
    from alignlab.data.row_formats import recognise

    for found in (row("A?"), row("A?", "B"), row("A?", "B", "C"), row("A?", "B", "C", "D"), row("", "Once.")):
        _, fields = prepare.written(found)
        (draft,) = recognise([fields]).read(fields)
        assert (draft.prompt, draft.completions) == (found["prompt"], found["completions"])


def test_the_card_of_rows_counted_by_hand():
    train = [row("Why is it so?", "Because it is.", "No."), row("why is it so", "a", "bcd"), row("Who?", "ab", "cd")]
    found = data_card.card({"train": train, "validation": [], "test": []})
    assert found.bias == data_card.Bias(longer=1, shorter=1, equal=1)
    assert found.bias.share == 0.5
    assert (found.openings, found.repeated_openings) == (2, 1)
    assert found.lengths[0] == data_card.Lengths("prompt", (13 + 12 + 4) / 3, [4, 4, 12, 13, 13])
    assert found.turns == {"1": 3}


def test_contamination_is_counted_by_text_opening_and_ngrams():
    long = "one two three four five six seven eight nine ten eleven twelve"
    train = [row("Where is the blue house?"), row(long + " and thirteen more"), row("Tell me about wild animals today")]
    test = [
        row("where is the BLUE house"),
        row(long),
        row("animals: tell about WILD, today?"),
        row("Nothing like any of the others"),
    ]
    (_, counts) = contamination({"train": train, "validation": [], "test": test})
    assert counts == Contamination("test", rows=4, exact=1, opening=2, near=2)
    assert "of 4 rows 1 are in the training rows, 2 share their opening" in str(counts)


def test_a_template_that_all_rows_share_is_not_contamination():
    start = "Below is an instruction that describes a task and here it comes now at last "
    train = [row(f"{start} number {n}") for n in range(100)]
    (_, counts) = contamination(
        {"train": train, "validation": [], "test": [row(f"{start} {n}00") for n in range(20, 60)]}
    )
    assert (counts.exact, counts.near) == (0, 0)


def test_languages_are_guessed_and_doubt_is_said():
    said = {
        "English": "How do I get to the station, and what is the fare?",
        "German": "Wie komme ich zu der Station und was ist das?",
        "French": "Je ne sais pas quelle est la gare pour les trains",
        "Chinese": "你好吗，今天天气怎么样",
        "Japanese": "今日の天気はどうですか",
        "Cyrillic script": "Как дела сегодня?",
        "unclear": "42 xyzzy",
    }
    assert {name: guess(text) for name, text in said.items()} == {name: name for name in said}


def test_pocket_and_transcripts_have_a_card_too(tmp_path, capsys):
    talk = "\n\nHuman: Is it number {}?\n\nAssistant: {}"
    for name, numbers in (("train", range(20)), ("test", range(20, 25))):
        lines = [json.dumps({"chosen": talk.format(n, "Yes."), "rejected": talk.format(n, "No.")}) for n in numbers]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    paths = [f"dataset.{name}={tmp_path / name}.jsonl" for name in ("train", "test")]
    for settings in (["dataset=pocket_small", "model=pocket_small"], ["dataset=hh_rlhf", *paths]):
        prepare.run(config("task=prepare", *settings), tmp_path / settings[0], {})
        facts = json.loads((tmp_path / settings[0] / "card.json").read_text())
        (only,) = facts["steps"].values()
        assert only["rows_out"] == sum(facts["rows"].values())
        assert Counter(facts["forms"]["test"]).total() == facts["rows"]["test"] > 0


def test_the_raw_rows_of_pocket_show_that_all_planted_faults_were_found(tmp_path, capsys):
    made = config("task=prepare", "dataset=pocket_raw", "dataset.world.size=small", "model.size=small")
    prepare.run(made, tmp_path, {})
    facts = json.loads((tmp_path / "card.json").read_text())
    assert len(facts["planted"]) == 6
    assert all(one["planted"] == one["found"] > 0 for one in facts["planted"])
    count = {one["fault"]: one["planted"] for one in facts["planted"]}["personal_data"]
    assert f"masking found {count} of {count} (100.0%), with 0 false alarms in" in capsys.readouterr().out
    assert "differs" not in (tmp_path / "card.html").read_text()


def test_a_run_says_which_measured_rows_it_trains_on(tmp_path, capsys):
    (tmp_path / "train.jsonl").write_text('{"prompt": "Where is it?", "completion": "There."}\n')
    (tmp_path / "test.jsonl").write_text('{"prompt": "where is it", "completion": "Here."}\n')
    paths = [f"dataset.path={tmp_path / 'train.jsonl'}", f"dataset.test_path=[{tmp_path / 'test.jsonl'}]"]
    report_contamination(config("dataset=file", "model=scratch", *paths, "dataset.validation=0"), tmp_path)
    assert "test: of 1 rows 1 are in the training rows" in capsys.readouterr().out
    assert json.loads((tmp_path / "contamination.json").read_text())[1]["exact"] == 1
