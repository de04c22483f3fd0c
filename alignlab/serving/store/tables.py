"""The tables of the store; `migrations/versions/` creates and changes them."""

from sqlalchemy import JSON, Column, Float, Index, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData()

answers = Table(
    "answers",  # one row for each completion that was served
    metadata,
    Column("id", String(64), primary_key=True),
    Column("created", Float, nullable=False),  # seconds since 1970
    Column("user", String(200), nullable=False),  # a pseudonym
    Column("model", String(400), nullable=False),
    Column("version", String(64), nullable=False),  # the fingerprint of the weights
    Column("prompt_hash", String(64), nullable=False),
    Column("prompt", JSON(none_as_null=True)),  # conversation turns; null where texts are not stored
    Column("completion", Text),
    Column("finish_reason", String(20), nullable=False),
    Column("sampling", JSON, nullable=False),
    Index("answers_user", "user"),
    Index("answers_created", "created"),
)

items = Table(
    "items",  # one row for each set of answers that people compare or rank
    metadata,
    Column("id", String(64), primary_key=True),
    Column("created", Float, nullable=False),
    Column("kind", String(20), nullable=False),  # compare or label
    Column("user", String(200), nullable=False),  # who created it
    Column("prompt", JSON(none_as_null=True)),
    Column("candidates", JSON, nullable=False),  # a list of {answer_id, completion, model, version}
    Column("instructions", Text, nullable=False),
    Index("items_kind", "kind", "created"),
)

feedback = Table(
    "feedback",  # one row for each person's feedback on one answer or item
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(20), nullable=False),  # answer, compare or label
    Column("subject", String(64), nullable=False),  # the id of the answer or of the item
    Column("user", String(200), nullable=False),
    Column("created", Float, nullable=False),
    Column("updated", Float, nullable=False),
    Column("withdrawn", Float),  # the time of withdrawal; the value is empty then
    Column("value", JSON, nullable=False),
    UniqueConstraint("kind", "subject", "user"),
    Index("feedback_user", "user"),
    Index("feedback_updated", "updated"),
)

idempotency = Table(
    "idempotency",  # the response to each request that had an Idempotency-Key
    metadata,
    Column("user", String(200), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("created", Float, nullable=False),
    Column("request_hash", String(64), nullable=False),
    Column("response", JSON, nullable=False),
)

keys = Table(
    "keys",  # API keys, by the hash of their secret
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("user", String(200), nullable=False),
    Column("role", String(20), nullable=False),  # use, label or administer
    Column("created", Float, nullable=False),
    Column("revoked", Float),
    Index("keys_user", "user"),
)
