"""The items of a report as its page holds them: the first as HTML, all of them as data for the page's script.

A page of 2,000 items stays under 3 MB: long texts are cut, and the file that holds them whole is named.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from alignlab.reports.report_items import VERDICTS, Item, Items

MAX_BYTES = 2_000_000  # of all sets of a page
LENGTHS = (20_000, 2_000, 1_000, 500, 250, 120)  # characters of a text; the first that fits
SHOWN = 4  # items that are written into the page as HTML
COLOURS = {"worse": "worse", "wrong": "worse", "still wrong": "changed", "better": "better", "right": "better"}


class Score(NamedTuple):
    """A score of a text in words; `failed` marks one that is worse than the base model's, or wrong."""

    text: str
    failed: bool


class ItemCards(NamedTuple):
    """A set of items and the bytes that it may take in the page."""

    items: Items
    most: int = MAX_BYTES

    @property
    def first(self) -> list[Item]:
        """Return the items that are written into the page as HTML."""
        return self.items.items[:SHOWN]

    @property
    def verdicts(self) -> list[tuple[str, int, str]]:
        """Return each verdict with its number of items and its colour."""
        counts = {name: sum(item.verdict == name for item in self.items.items) for name in VERDICTS}
        return [(name, count, self.colour(name)) for name, count in counts.items() if count]

    @property
    def all_verdicts(self) -> list[str]:
        """Return the verdicts that any item has, overall or by a measure."""
        occurring = {name for item in self.items.items for name in (item.verdict, *item.by_measure)}
        return [name for name in VERDICTS if name in occurring]

    def colour(self, verdict: str) -> str:
        """Return the class of a verdict's colour."""
        return COLOURS.get(verdict, "")

    def prompt(self, item: Item) -> str:
        """Return an item's prompt as one text; the roles are named where it has several turns."""
        several = len(item.prompt) > 1
        return "\n\n".join(f"{turn['role']}: {turn['content']}" if several else turn["content"] for turn in item.prompt)

    def scores(self, item: Item, model: int) -> Iterator[Score]:
        """Yield the scores of one model's text."""
        judged = model == self.items.compared[1]
        for measure, value, verdict in zip(self.items.measures, item.values[model], item.by_measure, strict=True):
            if value is not None:
                shown = ("yes" if value else "no") if measure.rate else f"{float(f'{value:.3g}'):g}"
                failed = verdict in {"worse", "wrong", "still wrong"}
                yield Score(f"{measure.label} {shown}", judged and failed)

    @property
    def json(self) -> Markup:
        """Return all items for the page's script; characters of HTML are escaped."""
        items = self.items
        for length in LENGTHS:
            rows = [item_json(one, length) for one in items.items]
            if sum(len(row.encode()) for row in rows) <= self.most:
                break
        head = {
            "models": items.models,
            "compared": items.compared,
            "measures": [[one.label, one.sign, one.rate] for one in items.measures],
            "verdicts": VERDICTS,
            "total": len(rows),
            "source": items.source,
        }
        text = f'{json.dumps(head)[:-1]}, "items": [{",".join(within(rows, self.most))}]}}'
        return Markup(escaped(text))


def escaped(text: str) -> str:
    """Escape in JSON what could end a script element."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def item_json(item: Item, length: int) -> str:
    """Return one item as a compact JSON list; texts are cut to a number of characters."""
    turns = [[turn["role"], cut(turn["content"], length)] for turn in item.prompt]
    values = [[None if one is None else float(f"{one:.3g}") for one in of_model] for of_model in item.values]
    places = [-1 if given is None else VERDICTS.index(given) for given in (item.verdict, *item.by_measure)]
    row: list[Any] = [item.id, item.kind, turns, [cut(text, length) for text in item.texts], values, places]
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def cut(text: str, length: int) -> str:
    """Return a text, or its beginning and how many characters are missing."""
    return text if len(text) <= length else f"{text[:length]} … ({len(text) - length:,} more characters)"


def within(rows: Sequence[str], most: int) -> Iterator[str]:
    """Yield rows until they take more than a number of bytes."""
    size = 0
    for row in rows:
        size += len(row.encode())
        if size > most:
            return
        yield row
