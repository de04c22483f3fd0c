"""`task=prepare`: the data set that it writes, the data card, and the page of the card."""

import json
from collections import Counter
from pathlib import Path

from command import config

from alignlab import data
from alignlab.config.dataset import FileData
from alignlab.data import row_formats
from alignlab.data.contamination import Contamination, contamination
from alignlab.data.language_id import guess_language
from alignlab.pipeline.prepare_inputs import count_contamination
from alignlab.reports import data_card
from alignlab.tasks import prepare


def row(prompt, *completions, **more):
    turns = [{"role": "user", "content": prompt}] if prompt else []
    return {"id": prompt, "kind": "", "made_by": "", "prompt": turns, "completions": list(completions), **more}


def run_task(tmp_path, capsys, rows, *settings):
    """Run the task on rows; return its folder and its output."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    bound = config("task=prepare", "dataset=file", f"dataset.path={tmp_path / 'rows.jsonl'}", *settings)
    prepare.run(bound, tmp_path / "out")
    return tmp_path / "out", capsys.readouterr().out


EVIL = "</p><script>alert('x')</script>"


def test_the_card_counts_the_rows_and_the_page_escapes_them(tmp_path, capsys):
    rows = [{"prompt": f"What is the number {n} of {EVIL}?", "completion": f"It is {n}."} for n in range(200)]
    rows += [rows[0], {"prompt": EVIL, "completion": 3}]
    folder, output = run_task(tmp_path, capsys, rows)
    facts = json.loads((folder / "card.json").read_text())
    assert sum(facts["rows"].values()) == 200
    assert facts["steps"]["read"]["dropped"] == {"completion: the field is a number": 1}
    assert facts["steps"]["deduplicate"]["dropped"] == {"the same as an earlier row": 1}
    page = (folder / "card.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "rows.jsonl:202" in page
    assert "http" not in page.replace("http-equiv", "")
    assert output.splitlines()[-1] == str(folder / "card.html")
    assert Path(output.splitlines()[-1]).exists()


def test_the_written_rows_can_be_read_again_unchanged(tmp_path, capsys):
    rows = [
        *({"prompt": f"Question number {n}?", "completion": "So."} for n in range(40)),
        *({"prompt": f"Pair number {n}?", "chosen": "So.", "rejected": "No."} for n in range(5)),
    ]
    folder, _ = run_task(tmp_path, capsys, rows[:40], "dataset.validation=0", "dataset.test=0")
    settings = config("dataset=file", f"dataset.path={folder / 'data' / 'train'}", "model=scratch").dataset
    dataset = FileData(**{**dict(settings), "validation": 0.0, "test": 0.0})
    view = data.view(dataset, "demonstrations", "train")
    assert [(r["prompt"], r["completion"]) for r in view] == [
        ([{"role": "user", "content": r["prompt"]}], "So.") for r in rows[:40]
    ]


def test_every_form_is_written_in_a_format_that_is_detected():
    for original in (row("A?"), row("A?", "B"), row("A?", "B", "C"), row("A?", "B", "C", "D"), row("", "Once.")):
        _, fields = prepare.form_of(original)
        (draft,) = row_formats.detect([fields]).parse(fields)
        assert (draft.prompt, draft.completions) == (original["prompt"], original["completions"])


def test_the_card_of_rows_counted_by_hand():
    train = [row("Why is it so?", "Because it is.", "No."), row("why is it so", "a", "bcd"), row("Who?", "ab", "cd")]
    card = data_card.card({"train": train, "validation": [], "test": []})
    assert card.bias == data_card.Bias(longer=1, shorter=1, equal=1)
    assert card.bias.share == 0.5
    assert (card.openings, card.repeated_openings) == (2, 1)
    assert card.lengths[0] == data_card.Lengths("prompt", (13 + 12 + 4) / 3, [4, 4, 12, 13, 13])
    assert card.turns == {"1": 3}


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


def test_languages_are_guessed_or_unclear():
    texts = {
        "English": "How do I get to the station, and what is the fare?",
        "German": "Wie komme ich zu der Station und was ist das?",
        "French": "Je ne sais pas quelle est la gare pour les trains",
        "Chinese": "你好吗，今天天气怎么样",
        "Japanese": "今日の天気はどうですか",
        "Cyrillic script": "Как дела сегодня?",
        "unclear": "42 xyzzy",
    }
    assert {name: guess_language(text) for name, text in texts.items()} == {name: name for name in texts}


def test_pocket_and_transcripts_have_a_card_too(tmp_path, capsys):
    talk = "\n\nHuman: Is it number {}?\n\nAssistant: {}"
    for name, numbers in (("train", range(20)), ("test", range(20, 25))):
        lines = [json.dumps({"chosen": talk.format(n, "Yes."), "rejected": talk.format(n, "No.")}) for n in numbers]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    paths = [f"dataset.{name}={tmp_path / name}.jsonl" for name in ("train", "test")]
    for settings in (["dataset=pocket_small", "model=pocket_small"], ["dataset=hh_rlhf", *paths]):
        prepare.run(config("task=prepare", *settings), tmp_path / settings[0])
        facts = json.loads((tmp_path / settings[0] / "card.json").read_text())
        (only,) = facts["steps"].values()
        assert only["rows_out"] == sum(facts["rows"].values())
        assert Counter(facts["forms"]["test"]).total() == facts["rows"]["test"] > 0


def test_the_card_of_pockets_raw_rows_shows_that_all_planted_faults_were_found(tmp_path, capsys):
    bound = config("task=prepare", "dataset=pocket_raw", "dataset.world.size=small", "model.size=small")
    prepare.run(bound, tmp_path)
    facts = json.loads((tmp_path / "card.json").read_text())
    assert len(facts["planted"]) == 6
    assert all(fault["planted"] == fault["found"] > 0 for fault in facts["planted"])
    count = {fault["fault"]: fault["planted"] for fault in facts["planted"]}["personal_data"]
    assert f"masking found {count} of {count} (100.0%), with 0 false alarms in" in capsys.readouterr().out
    assert "differs" not in (tmp_path / "card.html").read_text()


def test_a_run_reports_how_many_test_rows_it_trains_on(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"prompt": "Where is it?", "completion": "There."}\n')
    (tmp_path / "test.jsonl").write_text('{"prompt": "where is it", "completion": "Here."}\n')
    paths = [f"dataset.path={tmp_path / 'train.jsonl'}", f"dataset.test_path=[{tmp_path / 'test.jsonl'}]"]
    _, test = count_contamination(config("dataset=file", "model=scratch", *paths, "dataset.validation=0"), tmp_path)
    assert str(test).startswith("test: of 1 rows 1 are in the training rows")
    assert json.loads((tmp_path / "contamination.json").read_text())[1]["exact"] == 1
