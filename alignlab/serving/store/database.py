"""Open a database and bring its tables up to date: SQLite in a file, or PostgreSQL by its URL."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as Alembic
from sqlalchemy.exc import SQLAlchemyError

from alignlab.errors import failure
from alignlab.runtime.files import locked

MIGRATIONS = Path(__file__).parent / "migrations"
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000")


def connect(place: str) -> sa.Engine:
    """Open the database of a file or a URL and migrate it; raises a `Failure` where that is not possible."""
    engine = sa.create_engine(url_of(place), pool_pre_ping="://" in place)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", configure_sqlite)
    try:
        if "://" in place:
            migrate(engine)
        else:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            with locked(Path(place)):
                migrate(engine)
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        shown = engine.url.render_as_string(hide_password=True)
        raise failure("task.store", f"{shown} cannot be opened ({reason})", "check the path or the URL") from error
    return engine


def url_of(place: str) -> str:
    """Return SQLAlchemy's URL of a file or of a PostgreSQL URL."""
    scheme, separator, rest = place.partition("://")
    if not separator:
        return f"sqlite:///{Path(place).absolute()}"
    return f"postgresql+psycopg://{rest}" if scheme in {"postgresql", "postgres"} else place


def configure_sqlite(connection: Any, _: Any) -> None:
    """Let a commit return only when the data is on the disk, and let readers read while a writer writes."""
    for pragma in PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def migrate(engine: sa.Engine) -> None:
    """Apply the migrations that the database lacks."""
    settings = Alembic()
    settings.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection:
        settings.attributes["connection"] = connection
        command.upgrade(settings, "head")
