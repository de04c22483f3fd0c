"""Plant the faults of collected data in clean rows, and count them.

Each row gets at most one fault, so that the counts are exact and data cleaning can be checked against them.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

FAULTY = 0.35  # the share of rows with a fault
SOURCES = ("forum", "survey", "chat log")
PEOPLE = ("maria.lopez", "j.smith", "anna_k", "t.nowak")


def corrupt(rows: Sequence[dict[str, Any]], random: Random) -> tuple[list[tuple[str, ...]], dict[str, int]]:
    """Return demonstrations as faulty table rows (id, prompt, response, source, contact), and counts by fault."""
    planted: Counter[str] = Counter(rows=0)
    table: list[list[str]] = []
    for row in rows:
        clean = [row["messages"][0]["content"], row["messages"][1]["content"], random.choice(SOURCES), ""]
        if random.random() < FAULTY:
            fault = random.choice(list(FAULTS))
            planted[fault] += 1
            table.extend(FAULTS[fault](clean, random))
        else:
            table.append(clean)
    planted["rows"] = len(table)
    return [(str(index), *row) for index, row in enumerate(table)], dict(planted)


def _duplicate(row: list[str], random: Random) -> list[list[str]]:
    return [row, list(row)]


def _near_duplicate(row: list[str], random: Random) -> list[list[str]]:
    return [row, [f"  {row[0].upper()} ", row[1].replace(" ", "  "), *row[2:]]]


def _add_markup(row: list[str], random: Random) -> list[list[str]]:
    tags = random.choice(("<p>{}</p>", "<b>{}</b><br/>", "{}&nbsp;<a href='#'>more</a>"))
    return [[row[0], tags.format(row[1]), *row[2:]]]


def _break_encoding(row: list[str], random: Random) -> list[list[str]]:
    """Put the response in curly quotes, and decode its UTF-8 as Windows-1252."""
    broken = f"\u201c{row[1]}\u2019".encode().decode("cp1252", errors="replace")
    return [[row[0], broken, *row[2:]]]


def _add_personal_data(row: list[str], random: Random) -> list[list[str]]:
    name = random.choice(PEOPLE)
    contact = random.choice(
        (f"{name}@example.org", f"+1 555 01{random.randrange(100):02d}", f"10.0.0.{random.randrange(256)}")
    )
    return [[f"{row[0]} You can reach me at {contact}.", *row[1:3], contact]]


def _remove_field(row: list[str], random: Random) -> list[list[str]]:
    missing = random.randrange(2)
    return [[text if index != missing else random.choice(("", "N/A", "null")) for index, text in enumerate(row)]]


FAULTS: dict[str, Callable[[list[str], Random], list[list[str]]]] = {
    "duplicates": _duplicate,
    "near_duplicates": _near_duplicate,
    "markup": _add_markup,
    "broken_encoding": _break_encoding,
    "personal_data": _add_personal_data,
    "missing_fields": _remove_field,
}
