"""Check that the packages of the server are installed, before anything is loaded."""

from importlib.util import find_spec

from alignlab.errors import mistake

PACKAGES = ("fastapi", "uvicorn", "sqlalchemy", "alembic", "prometheus_client")


def check_installed() -> None:
    """Raise a `Mistake` where a package is missing."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise mistake("task", f"{', '.join(missing)} not installed", "run pip install 'alignlab[serve]'")
