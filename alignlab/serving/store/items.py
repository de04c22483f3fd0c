"""Items that people compare or rank: add one, choose the next one, and measure who agrees with whom."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import sqlalchemy as sa

from alignlab.chat import Turn
from alignlab.serving.problems import missing
from alignlab.serving.store.records import Candidate, Row, User, new_id
from alignlab.serving.store.tables import feedback, items


def add_item(
    connection: sa.Connection,
    user: User,
    kind: str,
    prompt: Sequence[Turn],
    candidates: Sequence[Candidate],
    instructions: str,
    with_text: bool,
) -> Row:
    """Store a set of answers that people compare or rank, its texts only where the setting says so; return it."""
    row = {
        "id": new_id(kind),
        "created": time.time(),
        "kind": kind,
        "user": user.name,
        "prompt": list(prompt) if with_text else None,
        "candidates": [each if with_text else each | {"completion": ""} for each in candidates],
        "instructions": instructions,
    }
    connection.execute(items.insert(), row)
    return row


def get_item(connection: sa.Connection, item_id: str) -> Row:
    """Return an item; raises a `Problem` where it is not there."""
    row = connection.execute(sa.select(items).where(items.c.id == item_id)).mappings().first()
    if row is None:
        raise missing(f"the item {item_id}")
    return dict(row)


def next_item(connection: sa.Connection, user: User) -> tuple[Row | None, int, int]:
    """Return the item with the fewest labelers that a user has not ranked, the number ranked, and that of all."""
    valid = sa.and_(feedback.c.kind == "label", feedback.c.withdrawn.is_(None))
    mine = sa.select(feedback.c.subject).where(valid, feedback.c.user == user.name)
    labelers = sa.select(sa.func.count()).where(valid, feedback.c.subject == items.c.id).scalar_subquery()
    open_items = sa.select(items).where(items.c.kind == "label", items.c.id.not_in(mine))
    row = connection.execute(open_items.order_by(labelers, items.c.created, items.c.id).limit(1)).mappings().first()
    all_items = sa.select(sa.func.count()).select_from(items).where(items.c.kind == "label")
    done = sa.select(sa.func.count()).select_from(items).where(items.c.kind == "label", items.c.id.in_(mine))
    ranked, total = (connection.execute(query).scalar_one() for query in (done, all_items))
    return dict(row) if row else None, ranked, total


def agreement(connection: sa.Connection) -> dict[str, Any]:
    """Return how often every two labelers order the same two answers alike, and the items on which they do not."""
    query = sa.select(feedback.c.subject, feedback.c.user, feedback.c.value)
    rows = connection.execute(query.where(feedback.c.kind == "label", feedback.c.withdrawn.is_(None))).all()
    by_item: dict[str, list[tuple[str, Mapping[str, int]]]] = defaultdict(list)
    for item, user, value in rows:
        by_item[item].append((user, value["ranks"]))
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    per_item: dict[str, list[float]] = defaultdict(list)
    for item, ranked in by_item.items():
        for (first, ranks), (second, others) in combinations(sorted(ranked, key=lambda each: each[0]), 2):
            same = list(same_order(ranks, others))
            scores[first, second] += same
            per_item[item] += same
    means = {item: sum(same) / len(same) for item, same in per_item.items() if same}
    return {
        "labelers": [
            {"first": first, "second": second, "pairs": len(same), "agreement": sum(same) / len(same)}
            for (first, second), same in sorted(scores.items())
            if same
        ],
        "disputed": sorted((item for item, mean in means.items() if mean < 1), key=lambda item: (means[item], item)),
    }


def same_order(ranks: Mapping[str, int], others: Mapping[str, int]) -> Iterator[float]:
    """Yield for every two answers 1 where both order them alike, 0 where not, and 0.5 where one of both has a tie."""
    for a, b in combinations(sorted(ranks), 2):
        first, second = sign(ranks[a] - ranks[b]), sign(others[a] - others[b])
        yield 1.0 if first == second else 0.5 if 0 in (first, second) else 0.0


def sign(number: int) -> int:
    """Return -1, 0 or 1."""
    return (number > 0) - (number < 0)
