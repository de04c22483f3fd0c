"""Start the dashboard, and stop it with a signal."""

import os
import secrets
from collections.abc import Callable
from contextlib import closing
from typing import Any

import uvicorn

from alignlab.config.task import Dashboard as Settings
from alignlab.dashboard.app import Dashboard
from alignlab.dashboard.runs import Index
from alignlab.runtime.progress import say
from alignlab.runtime.signals import Stopped
from alignlab.serving.listening import LOOPBACK, bind, in_url
from alignlab.serving.server import Announcing

DRAIN = 1  # seconds for running requests after a signal


class Closing(Announcing):
    """Ends the streams of events when it stops; they would otherwise hold their connections open."""

    def __init__(self, options: uvicorn.Config, dashboard: Dashboard) -> None:
        super().__init__(options)
        self.dashboard = dashboard

    async def shutdown(self, sockets: Any = None) -> None:
        """Stop the streams, then the server."""
        self.dashboard.closing = True
        await super().shutdown(sockets)


def serve(settings: Settings, explain: Callable[..., Any] | None) -> None:
    """Serve until a signal; raises a `Mistake` where the address cannot be used."""
    token = token_of(settings)
    index = Index({"outputs": settings.outputs, "multirun": settings.multirun})
    dashboard = Dashboard(index, token, explain)
    with closing(bind(settings.host, settings.port)) as bound:
        options = uvicorn.Config(
            dashboard.application(() if token else [*map(in_url, LOOPBACK)]),  # type: ignore[arg-type]
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=DRAIN,
        )
        try:
            Closing(options, dashboard).run([bound])
        except (Stopped, KeyboardInterrupt):
            say("stopped")


def token_of(settings: Settings) -> str:
    """Return the token that visitors need; empty on the loopback, and a new one where the settings name none."""
    if settings.token_env:
        return os.environ[settings.token_env]
    if settings.host in LOOPBACK:
        return ""
    token = secrets.token_urlsafe(32)
    say(f"dashboard: {settings.host} is not the loopback; the token of this start is {token}")
    return token
