"""Makes clean rows as messy as collected data is, and keeps count of what was planted.

Each row gets at most one fault, so that the counts are exact: whoever cleans the table can be checked against them.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

FAULTY = 0.35  # the share of rows that get a fault
SOURCES = ("forum", "survey", "chat log")
PEOPLE = ("maria.lopez", "j.smith", "anna_k", "t.nowak")


def mess_up(rows: Sequence[dict[str, Any]], random: Random) -> tuple[list[tuple[str, ...]], dict[str, int]]:
    """Turn demonstrations into messy table rows (id, prompt, response, source, contact) and counts by fault."""
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
    return [(str(place), *row) for place, row in enumerate(table)], dict(planted)


def _twice(row: list[str], random: Random) -> list[list[str]]:
    return [row, list(row)]


def _nearly_twice(row: list[str], random: Random) -> list[list[str]]:
    return [row, [f"  {row[0].upper()} ", row[1].replace(" ", "  "), *row[2:]]]


def _markup(row: list[str], random: Random) -> list[list[str]]:
    return [
        [
            row[0],
            random.choice(("<p>{}</p>", "<b>{}</b><br/>", "{}&nbsp;<a href='#'>more</a>")).format(row[1]),
            *row[2:],
        ]
    ]


def _encoding(row: list[str], random: Random) -> list[list[str]]:
    """Write a curly quote, read it as if it were Windows' encoding: the classic accident."""
    broken = f"\u201c{row[1]}\u2019".encode().decode("cp1252", errors="replace")
    return [[row[0], broken, *row[2:]]]


def _personal(row: list[str], random: Random) -> list[list[str]]:
    name = random.choice(PEOPLE)
    contact = random.choice(
        (f"{name}@example.org", f"+1 555 01{random.randrange(100):02d}", f"10.0.0.{random.randrange(256)}")
    )
    return [[f"{row[0]} You can reach me at {contact}.", *row[1:3], contact]]


def _missing(row: list[str], random: Random) -> list[list[str]]:
    lost = random.randrange(2)
    return [[text if place != lost else random.choice(("", "N/A", "null")) for place, text in enumerate(row)]]


FAULTS: dict[str, Callable[[list[str], Random], list[list[str]]]] = {
    "duplicates": _twice,
    "near_duplicates": _nearly_twice,
    "markup": _markup,
    "broken_encoding": _encoding,
    "personal_data": _personal,
    "missing_fields": _missing,
}
