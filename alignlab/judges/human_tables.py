"""People as judges: a table to fill in with a spreadsheet, and the labels in the tables that came back.

A row is an answer; the answers to a prompt stand together, in a random order. People write a rank for each criterion
(equal ranks for equal answers) and their name. A prompt that was left empty has no label of theirs. A prompt that was
half filled in, or a cell that is no rank, is reported with its file and line.
"""

import csv
import io
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from alignlab.config.judge import HumanJudge
from alignlab.errors import Failure, failure
from alignlab.judges.protocol import Context, Item, Labelled, Reading, Unlabelled

WRITTEN = ("item", "prompt", "answer", "text")  # columns that are filled in already
OPTIONAL = ("reason", "labeler")  # columns that people may fill in besides ranks


class Filled(NamedTuple):
    """A row of a table that was filled in, and where it stands."""

    path: Path
    line: int
    cells: dict[str, str]


class HumanTables(NamedTuple):
    """Tables that people have filled in."""

    paths: Sequence[Path]
    criteria: Mapping[str, str]

    def label(self, items: Sequence[Item], done: Container[str]) -> Iterator[Labelled | Unlabelled]:
        """Read the labels of every item; the rows of an item by one person are a reading."""
        known = {item.id: item for item in items}
        readings: dict[str, list[Reading]] = {}
        for path in self.paths:
            for rows in by_item_and_labeler(filled(path, self.criteria)):
                if reading := reading_of(rows, known, self.criteria):
                    readings.setdefault(rows[0].cells["item"], []).append(reading)
        for item in items:
            if item.id not in done:
                looks = readings.get(item.id)
                yield Labelled(item.id, looks) if looks else Unlabelled(item.id, "nobody has filled it in")


def table_to_fill_in(items: Sequence[Item], criteria: Mapping[str, str], seed: int) -> str:
    """Return the table to fill in, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*WRITTEN, *criteria, *OPTIONAL])
    for item in items:
        places = list(range(len(item.answers)))
        Random(f"{seed} {item.id}").shuffle(places)
        prompt = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in item.prompt)
        for place in places:
            cells = [item.id, prompt, str(place), item.answers[place], *("" for _ in (*criteria, *OPTIONAL))]
            writer.writerow(map(harmless, cells))
    return text.getvalue()


def harmless(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell


def filled(path: Path, criteria: Mapping[str, str]) -> list[Filled]:
    """Return the rows of a table, in its order; raises a `Failure` where a column is missing."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, restval="", dialect=dialect(stream.readline()))
            stream.seek(0)
            names = reader.fieldnames or []
            if missing := [name for name in ("item", "answer", *criteria) if name not in names]:
                raise wrong(path, 1, f"there is no column {missing[0]!r}", f"it has {', '.join(names) or 'none'}")
            return [
                Filled(path, reader.line_num, {str(name): (cell or "").strip() for name, cell in row.items()})
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise failure(str(path), f"cannot be read ({error})", "save it as CSV, in UTF-8") from error


def criteria_of(path: Path) -> dict[str, str]:
    """Return the criteria that a table has columns for."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        header = stream.readline()
    names = next(csv.reader([header], dialect(header)), [])
    return {name: "" for name in names if name not in (*WRITTEN, *OPTIONAL)}


def dialect(header: str) -> type[csv.Dialect]:
    """Return the dialect of a table by its header: many spreadsheets separate cells by semicolons."""

    class Own(csv.excel):
        delimiter = max(",;\t", key=header.count)

    return Own


def by_item_and_labeler(rows: Sequence[Filled]) -> Iterator[list[Filled]]:
    """Yield the rows of each item and labeler, wherever they stand."""
    groups: dict[tuple[str, str], list[Filled]] = {}
    for row in rows:
        groups.setdefault((row.cells["item"], row.cells.get("labeler", "")), []).append(row)
    yield from groups.values()


def reading_of(rows: Sequence[Filled], known: Mapping[str, Item], criteria: Mapping[str, str]) -> Reading | None:
    """Return one person's reading of an item; None where it was left empty, or where the item is none of these."""
    first = rows[0]
    item = known.get(first.cells["item"])
    if item is None or not any(row.cells[name] for row in rows for name in criteria):
        return None
    shown = [place_of(row, item) for row in rows]
    if sorted(shown) != list(range(len(item.answers))):
        what = f"item {item.id} has {len(item.answers)} answers, and these rows are of {sorted(shown)}"
        raise wrong(first.path, first.line, what, "leave every row in, once")
    ranks = {name: [rank(row, name, len(shown)) for row in rows] for name in criteria}
    reasons = [row.cells.get("reason", "") for row in rows]
    return Reading(first.cells.get("labeler") or first.path.stem, shown, ranks, reasons)


def place_of(row: Filled, item: Item) -> int:
    """Return the place of a row's answer in its item; raises a `Failure` where the text is another one."""
    number = row.cells["answer"]
    if not number.isdigit() or int(number) >= len(item.answers):
        what = f"item {item.id} has no answer {number!r}"
        raise wrong(row.path, row.line, what, "leave the column as it was written")
    text = row.cells.get("text")
    if text is not None and plain(text) != plain(item.answers[int(number)]):
        what = f"answer {number} of item {item.id} has another text"
        raise wrong(row.path, row.line, what, "it belongs to another run")
    return int(number)


def plain(text: str) -> str:
    """Return a text without what a spreadsheet may change in it."""
    return " ".join(text.removeprefix("'").split())


def rank(row: Filled, name: str, most: int) -> int:
    """Return the rank that was filled in; raises a `Failure` where it is none from 1 to `most`."""
    cell = row.cells[name]
    if not cell.isdigit() or not 1 <= int(cell) <= most:
        now = f"write a rank from 1 (best) to {most}, or leave all empty"
        raise wrong(row.path, row.line, f"{name} is {cell!r}", now)
    return int(cell)


def wrong(path: Path, line: int, what: str, now: str) -> Failure:
    """Build the failure of a row that cannot be understood."""
    return failure(f"{path}:{line}", what, now)


def load(settings: HumanJudge, context: Context) -> HumanTables:
    """Return the tables of the settings; they are read when they are asked for labels."""
    return HumanTables(settings.path, settings.criteria)
