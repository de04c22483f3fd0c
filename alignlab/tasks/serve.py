"""Serve a model over HTTP, with a store of feedback: `task=serve task.model=outputs/latest`."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from alignlab.config.schema import Config
from alignlab.config.task import Serve
from alignlab.errors import mistake
from alignlab.pipeline.language_models import check_language_model, language_model
from alignlab.serving.requirements import check_installed

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def plan(config: Config) -> Iterator[str]:
    """Yield the line of `dry_run=true`."""
    settings = check(config)
    names = [settings.url_model] if settings.engine == "url" else models(settings).values()
    yield f"serve {' and '.join(map(str, names))} at {address(settings.host, settings.port)}: engine {settings.engine}"


def run(config: Config, folder: Path) -> None:
    """Serve until SIGTERM or Ctrl-C; the last line printed is the server's address."""
    settings = check(config)
    from alignlab.serving.server import serve

    serve(settings, engines(config, settings), is_local=settings.host in LOOPBACK)
    with suppress(OSError):
        folder.rmdir()


def check(config: Config) -> Serve:
    """Return the task's settings; raises a `Mistake` where a package is missing or one names no language model."""
    settings = config.task
    assert isinstance(settings, Serve)
    check_installed()
    if settings.engine != "url":
        for place, named in models(settings).items():
            check_language_model(place, named)
    return settings


def models(settings: Serve) -> dict[str, str]:
    """Return the models to serve by the settings that name them."""
    return {"task.model": settings.model} | ({"task.beside": settings.beside} if settings.beside else {})


def address(host: str, port: int) -> str:
    """Return the address of the server."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def engines(config: Config, settings: Serve) -> dict[str, Any]:
    """Load the engines by their models' names."""
    if settings.engine == "url":
        raise mistake("task.engine", "url is not there yet", "use embedded")
    loaded = [load(config, settings, place, named) for place, named in models(settings).items()]
    return {engine.name: engine for engine in loaded}


def load(config: Config, settings: Serve, place: str, named: str) -> Any:
    """Load a model into an engine of this process."""
    from alignlab.models.load import load_policy
    from alignlab.runtime.files import digest_files
    from alignlab.serving.engines.embedded import EmbeddedEngine

    source = language_model(config, place, named)
    model, tokenizer = load_policy(source.path, config.hardware)
    limits = (settings.max_batch, settings.max_queue, settings.timeout)
    return EmbeddedEngine(source.name, digest_files([source.path]), model, tokenizer, *limits)
