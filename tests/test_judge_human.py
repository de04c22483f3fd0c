"""People's tables: what is handed out can be filled in with a spreadsheet and read again, and mistakes are said."""

import csv
import io

import pytest
from tiny import ask

from alignlab.errors import Failure
from alignlab.judges.human_tables import HumanTables, criteria_of, table_to_fill_in
from alignlab.judges.protocol import Item, Labelled, Unlabelled

ITEMS = [
    Item("000000", ask("why"), ["=1+1", 'do,\nno; "yes"', "bread"], [True] * 3),
    Item("000001", ask("how"), ["mix", "stop"], [True] * 2),
]
CRITERIA = {"safety": "Is it safe?", "helpfulness": "Does it help?"}


def fill(write, delimiter=",", labeler="anna"):
    """The table as a person fills it in; `write` gives ranks by item and answer."""
    rows = list(csv.DictReader(io.StringIO(table_to_fill_in(ITEMS, CRITERIA, 3))))
    for row in rows:
        ranks = write(row["item"], int(row["answer"]))
        row.update(zip(CRITERIA, ranks, strict=True) if ranks else (), reason="so", labeler=labeler)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def label(tmp_path, *tables):
    paths = [tmp_path / f"{number}.csv" for number in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        path.write_text(table, encoding="utf-8-sig", newline="")
    return list(HumanTables(paths, CRITERIA).label(ITEMS, ()))


def test_what_was_filled_in_is_read(tmp_path):
    first = fill(lambda item, answer: (answer + 1, 3 - answer if item == "000000" else 1))
    second = fill(lambda item, answer: (1, 1) if item == "000001" else None, ";", "ben")
    found = label(tmp_path, first, second)
    assert [len(one.readings) for one in found] == [1, 2]
    reading = found[0].readings[0]
    assert sorted(reading.shown) == [0, 1, 2]
    assert reading.ranks["safety"] == [place + 1 for place in reading.shown]
    assert reading.ranks["helpfulness"] == [3 - place for place in reading.shown]
    assert (reading.labeler, reading.reasons) == ("anna", ["so"] * 3)
    assert found[1].readings[1].labeler == "ben"
    assert found[1].readings[1].ranks == {"safety": [1, 1], "helpfulness": [1, 1]}
    assert criteria_of(tmp_path / "1.csv") == {"safety": "", "helpfulness": ""}


def test_what_was_left_empty_has_no_label(tmp_path):
    found = label(tmp_path, fill(lambda item, answer: (answer + 1, 1) if item == "000001" else None))
    assert [type(one) for one in found] == [Unlabelled, Labelled]
    assert found[0].why == "nobody has filled it in"


def test_answers_stand_in_an_order_by_lot():
    orders = {
        tuple(row["answer"] for row in csv.DictReader(io.StringIO(table_to_fill_in(ITEMS[:1], {}, s))))
        for s in range(30)
    }
    assert len(orders) == 6


def test_a_spreadsheet_takes_no_answer_for_a_formula():
    assert "'=1+1" in table_to_fill_in(ITEMS, CRITERIA, 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace(",2,2,so", ",,2,so"), r"0.csv:\d+: safety is ''; write a rank from 1 \(best\) to 3"),
        (lambda text: text.replace(",2,2,so", ",first,2,so"), r"safety is 'first'"),
        (lambda text: text.replace(",2,2,so", ",9,2,so"), r"safety is '9'"),
        (
            lambda text: text.replace("bread", "cake"),
            r"answer 2 of item 000000 has another text; it belongs to another",
        ),
        (
            lambda text: text.replace(",helpfulness,", ",help,"),
            r"0.csv:1: there is no column 'helpfulness'; it has item",
        ),
        (
            lambda text: "\n".join(line for line in text.split("\n") if ",bread," not in line),
            r"item 000000 has 3 answers",
        ),
        (lambda text: "", "there is no column 'item'; it has none"),
    ],
)
def test_mistakes_are_said_with_file_and_line(tmp_path, change, said):
    whole = fill(lambda item, answer: (answer + 1, answer + 1) if item == "000000" else None)
    with pytest.raises(Failure, match=said) as raised:
        label(tmp_path, change(whole))
    assert "\n" not in str(raised.value)
