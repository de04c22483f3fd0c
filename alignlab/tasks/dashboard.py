"""Show all runs in a browser, live while they train: `task=dashboard`."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from alignlab.config.schema import Config
from alignlab.config.task import Dashboard
from alignlab.serving.listening import address
from alignlab.serving.requirements import check_installed


def plan(config: Config) -> Iterator[str]:
    """Yield the line of `dry_run=true`."""
    settings = check(config)
    yield f"show the runs of {settings.outputs} and {settings.multirun} at {address(settings.host, settings.port)}"


def run(config: Config, folder: Path) -> None:
    """Serve the dashboard until SIGTERM or Ctrl-C; the last line printed is its address."""
    settings = check(config)
    from alignlab.dashboard.explainer import Explainer
    from alignlab.dashboard.server import serve

    with suppress(OSError):
        folder.rmdir()  # a dashboard leaves nothing, and would list itself
    serve(settings, Explainer(config.hardware) if settings.explain else None)


def check(config: Config) -> Dashboard:
    """Return the task's settings; raises a `Mistake` where a package of the server is missing."""
    settings = config.task
    assert isinstance(settings, Dashboard)
    check_installed()
    return settings
