"""A real server of a tiny model in a thread, and a client for it."""

import socket
import threading
import time
from contextlib import contextmanager

import httpx
import uvicorn
from command import config
from tiny import tiny_model, tiny_tokenizer

from alignlab.serving.app import build_app
from alignlab.serving.engines.embedded import EmbeddedEngine
from alignlab.serving.metrics import Metrics
from alignlab.serving.safety import Safety
from alignlab.serving.service import Service
from alignlab.serving.store.store import Store

MESSAGES = [{"role": "user", "content": "how do i bake bread"}]


def tiny_engine(name="tiny", seed=0, batch=8, queue=100, timeout=60.0, model=None):
    """An engine of a tiny random model."""
    model = model or tiny_model(seed, context=256)
    return EmbeddedEngine(name, f"weights-{seed}", model, tiny_tokenizer(), batch, queue, timeout)


@contextmanager
def served(folder, *overrides, engines=None, keys=(), store=None, hosts=(), score=None, followed=None, exporters=()):
    """Serve on a free port; `keys` are pairs of user and role, whose secrets are in `keys` of the client."""
    from alignlab.serving.keys import create_key

    engines = engines or [followed.load(followed.loaded) if followed else tiny_engine()]
    settings = config("task=serve", "task.max_new_tokens=40", *overrides).task
    metrics = Metrics()
    records = Store(store or str(folder / "feedback.db"), metrics.observe_commit)
    secrets = {
        user: records.writer.submit(lambda c, u=user, r=role: create_key(c, u, r)).result() for user, role in keys
    }
    safety = Safety(score, settings.safety_threshold, settings.safety, metrics) if score else None
    service = Service(settings, {engine.name: engine for engine in engines}, records, metrics, safety, exporters)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(build_app(service, hosts, followed), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, timeout=60) as client:
                client.service, client.keys, client.url = service, secrets, url
                yield client
        finally:
            server.should_exit = True
            thread.join()
            service.close()
            records.close()


def bearer(client, user):
    """The header with a user's key."""
    return {"Authorization": f"Bearer {client.keys[user]}"}
