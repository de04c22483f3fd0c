"""People as judges: a table to fill in with a spreadsheet, and what they have filled in.

A row is an answer; the answers to a prompt stand together, in an order by lot. People write a rank for each criterion,
equal ones where there is nothing to choose, and their name. A prompt that was left empty has no label of theirs; one
that was filled in by half, or with something that is no rank, is said with its file and line.
"""

import csv
import io
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from alignlab.errors import Failure, failure
from alignlab.judges.protocol import Item, Labelled, Reading, Unlabelled

SHOWN = ("item", "prompt", "answer", "text")  # the columns that are filled in already
OWN = ("reason", "labeler")  # those that people may fill in besides ranks


class Filled(NamedTuple):
    """A row of a table that was filled in, and where it stands."""

    path: Path
    line: int
    cells: dict[str, str]


class Human(NamedTuple):
    """Tables that people have filled in."""

    paths: Sequence[Path]
    criteria: Mapping[str, str]

    def label(self, items: Sequence[Item], done: Container[str]) -> Iterator[Labelled | Unlabelled]:
        """Read what was said of every item; each table's rows of an item are a reading."""
        known = {item.id: item for item in items}
        found: dict[str, list[Reading]] = {}
        for path in self.paths:
            for rows in together(filled(path, self.criteria)):
                if reading := said(rows, known, self.criteria):
                    found.setdefault(rows[0].cells["item"], []).append(reading)
        for item in items:
            if item.id not in done:
                own = found.get(item.id)
                yield Labelled(item.id, own) if own else Unlabelled(item.id, "nobody has filled it in")


def sheet(items: Sequence[Item], criteria: Mapping[str, str], seed: int) -> str:
    """The table to fill in, as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*SHOWN, *criteria, *OWN])
    for item in items:
        places = list(range(len(item.answers)))
        Random(f"{seed} {item.id}").shuffle(places)
        asked = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in item.prompt)
        for place in places:
            cells = [item.id, asked, str(place), item.answers[place], *("" for _ in (*criteria, *OWN))]
            writer.writerow(map(harmless, cells))
    return text.getvalue()


def harmless(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell


def filled(path: Path, criteria: Mapping[str, str]) -> list[Filled]:
    """The rows of a table, in its order."""
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
    """The criteria that a table has columns for."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        header = stream.readline()
    names = next(csv.reader([header], dialect(header)), [])
    return {name: "" for name in names if name not in (*SHOWN, *OWN)}


def dialect(header: str) -> type[csv.Dialect]:
    """How a table's cells are parted: many spreadsheets save with semicolons."""

    class Own(csv.excel):
        delimiter = max(",;\t", key=header.count)

    return Own


def together(rows: Sequence[Filled]) -> Iterator[list[Filled]]:
    """The rows of each item and labeler, wherever they stand."""
    groups: dict[tuple[str, str], list[Filled]] = {}
    for row in rows:
        groups.setdefault((row.cells["item"], row.cells.get("labeler", "")), []).append(row)
    yield from groups.values()


def said(rows: Sequence[Filled], known: Mapping[str, Item], criteria: Mapping[str, str]) -> Reading | None:
    """What one person says of an item; None where they have left it empty, or where the item is none of these."""
    first = rows[0]
    item = known.get(first.cells["item"])
    if item is None or not any(row.cells[name] for row in rows for name in criteria):
        return None
    shown = [place_of(row, item) for row in rows]
    if sorted(shown) != list(range(len(item.answers))):
        what = f"item {item.id} has {len(item.answers)} answers, and these rows are of {sorted(shown)}"
        raise wrong(first.path, first.line, what, "leave every row in, once")
    ranks = {name: [rank(row, name, len(shown)) for row in rows] for name in criteria}
    return Reading(
        first.cells.get("labeler") or first.path.stem, shown, ranks, [row.cells.get("reason", "") for row in rows]
    )


def place_of(row: Filled, item: Item) -> int:
    """Which answer a row is of; its text is held against the answer's, so that another run's table is found out."""
    number = row.cells["answer"]
    if not number.isdigit() or int(number) >= len(item.answers):
        raise wrong(
            row.path, row.line, f"item {item.id} has no answer {number!r}", "leave the column as it was written"
        )
    text = row.cells.get("text")
    if text is not None and plain(text) != plain(item.answers[int(number)]):
        raise wrong(
            row.path, row.line, f"answer {number} of item {item.id} has another text", "it belongs to another run"
        )
    return int(number)


def plain(text: str) -> str:
    """A text as it comes back from a spreadsheet."""
    return " ".join(text.removeprefix("'").split())


def rank(row: Filled, name: str, most: int) -> int:
    """The rank that was filled in."""
    cell = row.cells[name]
    if not cell.isdigit() or not 1 <= int(cell) <= most:
        raise wrong(
            row.path, row.line, f"{name} is {cell!r}", f"write a rank from 1 (best) to {most}, or leave all empty"
        )
    return int(cell)


def wrong(path: Path, line: int, what: str, now: str) -> Failure:
    """Make the failure of a row that cannot be understood."""
    return failure(f"{path}:{line}", what, now)
