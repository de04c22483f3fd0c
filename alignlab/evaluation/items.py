"""Which held-out rows, and which items of a suite, are asked, and the held-out answers to prompts."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from alignlab.evaluation.replies import Item, prompt_hash
from alignlab.runtime.files import digest

if TYPE_CHECKING:
    from alignlab.evaluation.protocol import Context


def select_per_kind(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Select at most `count` rows of each kind by the hash of their ids, so that their order does not matter.

    A larger count keeps the rows of a smaller one. Rows get the kind and the id that they may lack: no kind is "", and
    the id is the hash of the row's fields.
    """
    named = [{**row, "kind": row.get("kind") or "", "id": row.get("id") or digest(row)} for row in rows]
    unique = {row["id"]: row for row in named}.values()
    taken: Counter[str] = Counter()
    selected = []
    for row in sorted(unique, key=lambda row: digest(row["id"])):
        taken[row["kind"]] += 1
        if taken[row["kind"]] <= count:
            selected.append(row)
    return sorted(selected, key=lambda row: row["kind"])


def select_items(items: Iterable[Item], count: int) -> list[Item]:
    """Select at most `count` items of each kind, as `select_per_kind` does."""
    rows = [{"id": item.id, "kind": item.kind, "item": item} for item in items]
    return [row["item"] for row in select_per_kind(rows, count)]


def references(context: "Context") -> dict[str, list[str]]:
    """Return the held-out demonstrations by the hashes of their prompts."""
    from alignlab.data import view

    answers: dict[str, list[str]] = {}
    for row in view(context.config.dataset, "demonstrations", context.config.evaluation.split):
        answers.setdefault(prompt_hash(row["prompt"]), []).append(row["completion"])
    return answers
