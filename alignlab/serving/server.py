"""Start the server, and stop it in order: requests first, then engines, then the store."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

import uvicorn

from alignlab.config.task import Serve
from alignlab.errors import mistake
from alignlab.runtime.progress import say
from alignlab.runtime.signals import Stopped
from alignlab.serving.app import build_app
from alignlab.serving.engines.in_service import freeze_objects
from alignlab.serving.engines.protocol import Engine
from alignlab.serving.exporters.exports import Exporter
from alignlab.serving.follow import Followed
from alignlab.serving.keys import any_key
from alignlab.serving.listening import LOOPBACK, address, bind, in_url
from alignlab.serving.metrics import Metrics
from alignlab.serving.safety import Safety, Score
from alignlab.serving.service import Service
from alignlab.serving.store.store import Store

BACKLOG = 2048
DRAIN = 10  # seconds for running requests after a signal
IDLE = 75  # seconds after which an unused connection is closed: longer than clients and proxies keep one for reuse


class Models(NamedTuple):
    """Engines by their models' names, the scorer of the safety filter, the registry to follow, and the exporters."""

    engines: Mapping[str, Engine]
    score: Score | None
    followed: Followed | None = None
    exporters: Sequence[Exporter] = ()


class Announcing(uvicorn.Server):
    """Prints its address as soon as it listens."""

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Listen, and print where."""
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            say(f"serving at {address(*self.servers[0].sockets[0].getsockname()[:2])}")


def serve(settings: Serve, load: Callable[[], Models]) -> None:
    """Serve until a signal; raises a `Mistake`, before models are loaded, where the address may not be used."""
    metrics = Metrics()
    with (
        closing(Store(settings.database, metrics.observe_commit)) as store,
        closing(bind(settings.host, settings.port)) as bound,
    ):
        if settings.host not in LOOPBACK and not store.read_now(any_key):
            what = f"{settings.host} is not the loopback, and the store holds no key"
            raise mistake("task.host", what, "create one first: python -m alignlab task=key task.user=NAME")
        engines, score, followed, exporters = load()
        safety = Safety(score, settings.safety_threshold, settings.safety, metrics) if score else None
        service = Service(settings, engines, store, metrics, safety, exporters)
        try:
            app = build_app(service, [*map(in_url, LOOPBACK)] if service.keyring.is_open else (), followed)
            options = uvicorn.Config(
                app,  # type: ignore[arg-type]
                log_level="warning",
                access_log=False,
                backlog=BACKLOG,
                server_header=False,
                date_header=False,
                timeout_keep_alive=IDLE,
                timeout_graceful_shutdown=DRAIN,
            )
            freeze_objects()
            Announcing(options).run([bound])
        except (Stopped, KeyboardInterrupt):
            say("stopped")
        finally:
            service.close()
