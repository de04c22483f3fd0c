"""Queries that read the store."""

import sqlalchemy as sa

from alignlab.serving.store.records import Row, User
from alignlab.serving.store.tables import feedback


def ping(connection: sa.Connection) -> None:
    """Raise an error where the store cannot be read."""
    connection.execute(sa.select(1))


def list_feedback(connection: sa.Connection, user: User, limit: int, offset: int) -> tuple[list[Row], int]:
    """Return a page of feedback, the latest first, and the number of all: a user's own, or everybody's."""
    mine = sa.true() if user.may("administer") else feedback.c.user == user.name
    page = (
        sa.select(feedback).where(mine).order_by(feedback.c.updated.desc(), feedback.c.id).limit(limit).offset(offset)
    )
    total: int = connection.execute(sa.select(sa.func.count()).select_from(feedback).where(mine)).scalar_one()
    return [dict(row) for row in connection.execute(page).mappings()], total
