"""Queries that read the store: pages of feedback, and each user's part in it."""

from collections import Counter, defaultdict
from statistics import median
from typing import NamedTuple

import sqlalchemy as sa

from alignlab.serving.store.records import Row, User, hash_of
from alignlab.serving.store.tables import feedback

MANY = 10  # times the median of feedback: an outlier
FEW = 10  # thumbs that a user must have given for their share to count
FAR = 0.5  # difference between a user's share of thumbs up and the others' median: an outlier


class Wanted(NamedTuple):
    """Which feedback is listed."""

    kind: str | None = None
    by: str | None = None
    withdrawn: bool = True


def ping(connection: sa.Connection) -> None:
    """Raise an error where the store cannot be read."""
    connection.execute(sa.select(1))


def list_feedback(
    connection: sa.Connection, user: User, wanted: Wanted, limit: int, offset: int
) -> tuple[list[Row], int]:
    """Return a page of feedback, the latest first, and the number of all: a user's own, or everybody's."""
    conditions = [sa.true() if user.may("administer") else feedback.c.user == user.name]
    if wanted.kind:
        conditions.append(feedback.c.kind == wanted.kind)
    if wanted.by:
        conditions.append(feedback.c.user == wanted.by)
    if not wanted.withdrawn:
        conditions.append(feedback.c.withdrawn.is_(None))
    shown = sa.and_(*conditions)
    page = sa.select(feedback).where(shown).order_by(feedback.c.updated.desc(), feedback.c.id)
    total: int = connection.execute(sa.select(sa.func.count()).select_from(feedback).where(shown)).scalar_one()
    return [dict(row) for row in connection.execute(page.limit(limit).offset(offset)).mappings()], total


def influence(connection: sa.Connection) -> list[Row]:
    """Return each user's part in the feedback that was not withdrawn, the largest first; outliers are named."""
    query = sa.select(feedback.c.user, feedback.c.value).where(feedback.c.withdrawn.is_(None))
    values: dict[str, list[Row]] = defaultdict(list)
    for user, value in connection.execute(query):
        values[user].append(value)
    total = sum(map(len, values.values()))
    rows = [describe_user(user, given, total) for user, given in values.items()]
    many = MANY * median(row["feedback"] for row in rows) if rows else 0
    shares = [row["up_share"] for row in rows if row["up_share"] is not None]
    for row in rows:
        share = row["up_share"]
        far = len(shares) > 2 and share is not None and abs(share - median(shares)) > FAR
        row["outlier"] = len(rows) > 2 and (row["feedback"] > many or far)
    return sorted(rows, key=lambda row: (-row["feedback"], row["user"]))


def describe_user(user: str, given: list[Row], total: int) -> Row:
    """Return the numbers of one user: how much, how often repeated, and the share of thumbs that are up."""
    thumbs = [value["thumb"] for value in given if "thumb" in value]
    texts = Counter(hash_of([value.get("comment"), value.get("correction")]) for value in given if wrote(value))
    return {
        "user": user,
        "feedback": len(given),
        "share": len(given) / total,
        "duplicates": sum(count - 1 for count in texts.values()),
        "up_share": thumbs.count("up") / len(thumbs) if len(thumbs) >= FEW else None,
    }


def wrote(value: Row) -> bool:
    """Return whether feedback has a text."""
    return bool(value.get("comment") or value.get("correction"))
