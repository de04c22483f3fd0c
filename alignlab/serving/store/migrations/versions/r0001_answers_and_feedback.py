"""Create the tables of answers, items, feedback, idempotency keys and API keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = branch_labels = depends_on = None


def upgrade() -> None:
    """Create all tables, and their indices."""
    create_answers_and_items()
    create_feedback_and_keys()
    op.create_index("answers_user", "answers", ["user"])
    op.create_index("answers_created", "answers", ["created"])
    op.create_index("items_kind", "items", ["kind", "created"])
    op.create_index("feedback_user", "feedback", ["user"])
    op.create_index("feedback_updated", "feedback", ["updated"])
    op.create_index("keys_user", "keys", ["user"])


def create_answers_and_items() -> None:
    """Create the tables of what people judge."""
    op.create_table(
        "answers",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("model", sa.String(400), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("prompt_hash", sa.String(64), nullable=False),
        sa.Column("prompt", sa.JSON),
        sa.Column("completion", sa.Text),
        sa.Column("finish_reason", sa.String(20), nullable=False),
        sa.Column("sampling", sa.JSON, nullable=False),
    )
    op.create_table(
        "items",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("prompt", sa.JSON),
        sa.Column("candidates", sa.JSON, nullable=False),
        sa.Column("instructions", sa.Text, nullable=False),
    )


def create_feedback_and_keys() -> None:
    """Create the tables of what people say, and of who they are."""
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("updated", sa.Float, nullable=False),
        sa.Column("withdrawn", sa.Float),
        sa.Column("value", sa.JSON, nullable=False),
        sa.UniqueConstraint("kind", "subject", "user"),
    )
    op.create_table(
        "idempotency",
        sa.Column("user", sa.String(200), primary_key=True),
        sa.Column("key", sa.String(200), primary_key=True),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("request_hash", sa.String(64), nullable=False),
        sa.Column("response", sa.JSON, nullable=False),
    )
    op.create_table(
        "keys",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("user", sa.String(200), nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("revoked", sa.Float),
    )


def downgrade() -> None:
    """Drop all tables."""
    for name in ("keys", "idempotency", "feedback", "items", "answers"):
        op.drop_table(name)
