"""Start the server, and stop it in order: requests first, then engines, then the store."""

from collections.abc import Mapping

import uvicorn

from alignlab.config.task import Serve
from alignlab.errors import mistake
from alignlab.runtime.progress import say
from alignlab.runtime.signals import Stopped
from alignlab.serving.app import build_app
from alignlab.serving.engines.protocol import Engine
from alignlab.serving.metrics import Metrics
from alignlab.serving.safety import Safety, Score
from alignlab.serving.service import Service
from alignlab.serving.store.store import Store

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
BACKLOG = 2048
DRAIN = 10  # seconds for running requests after a signal


class Announcing(uvicorn.Server):
    """Prints its address as soon as it listens."""

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Listen, and print where."""
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            say(f"serving at http://{f'[{host}]' if ':' in host else host}:{port}")


def serve(settings: Serve, engines: Mapping[str, Engine], score: Score | None, is_local: bool) -> None:
    """Serve until a signal; raises a `Mistake` for an address beyond the loopback without keys."""
    metrics = Metrics()
    store = Store(settings.database, metrics.observe_commit)
    try:
        safety = Safety(score, settings.safety_threshold, settings.safety, metrics) if score else None
        service = Service(settings, engines, store, metrics, safety)
        if service.keyring.is_open and not is_local:
            what = f"{settings.host} is not the loopback, and the store holds no key"
            raise mistake("task.host", what, "create one first: python -m alignlab task=key task.user=NAME")
        app = build_app(service, LOCAL_HOSTS if service.keyring.is_open else ())
        options = uvicorn.Config(
            app,  # type: ignore[arg-type]
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            backlog=BACKLOG,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=DRAIN,
        )
        try:
            Announcing(options).run()
        except (Stopped, KeyboardInterrupt):
            say("stopped")
    finally:
        for engine in engines.values():
            engine.close()
        store.close()
