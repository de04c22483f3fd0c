"""Serve a model over HTTP, with a store of feedback: `task=serve task.model=outputs/latest`."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from alignlab.config.schema import Config
from alignlab.config.task import Serve
from alignlab.errors import failure
from alignlab.models.references import Source
from alignlab.pipeline.language_models import check_language_model, language_model
from alignlab.serving.listening import address
from alignlab.serving.requirements import check_installed


def plan(config: Config) -> Iterator[str]:
    """Yield the line of `dry_run=true`."""
    settings = check(config)
    names = [settings.url_model] if settings.engine == "url" else models(settings).values()
    yield f"serve {' and '.join(map(str, names))} at {address(settings.host, settings.port)}: engine {settings.engine}"


def run(config: Config, folder: Path) -> None:
    """Serve until SIGTERM or Ctrl-C; the last line printed is the server's address."""
    settings = check(config)
    from alignlab.serving.server import Models, serve

    serve(settings, lambda: Models(engines(config, settings), safety_scorer(config, settings)))
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


def engines(config: Config, settings: Serve) -> dict[str, Any]:
    """Load the engines by their models' names."""
    limits = (settings.max_batch, settings.max_queue, settings.timeout)
    if settings.engine == "url":
        from alignlab.serving.engines.chat_server import ChatServerEngine

        assert settings.url is not None
        assert settings.url_model is not None
        key = os.environ[settings.key_env] if settings.key_env else ""
        return {settings.url_model: ChatServerEngine(settings.url, settings.url_model, key, *limits)}
    loaded = [load(config, settings, place, named, limits) for place, named in models(settings).items()]
    if len({engine.name for engine in loaded}) < len(loaded):
        for engine, named in zip(loaded, models(settings).values(), strict=True):
            engine.name = named
    return {engine.name: engine for engine in loaded}


def load(config: Config, settings: Serve, place: str, named: str, limits: tuple[int, int, float]) -> Any:
    """Load a model into an engine of this process."""
    from alignlab.models.decoding import is_plain_decoder
    from alignlab.models.load import load_policy
    from alignlab.runtime.files import digest_files
    from alignlab.serving.engines.embedded import EmbeddedEngine
    from alignlab.serving.engines.gpu import GpuEngine

    source = language_model(config, place, named)
    model, tokenizer = load_policy(source.path, config.hardware)
    kind = GpuEngine if settings.engine == "gpu" else EmbeddedEngine
    if kind is EmbeddedEngine and not is_plain_decoder(model):
        what = f"{named} is no plain decoder, and the embedded engine serves no other models"
        raise failure(place, what, "serve it with another server, and use task.engine=url")
    return kind(served_name(source), digest_files([source.path]), model, tokenizer, *limits)


def served_name(source: Source) -> str:
    """Return the name of a model for clients, who need not see this machine's folders."""
    if not Path(source.name).exists():
        return source.name
    return source.path.parent.name if source.path.name == "model" else source.path.name


def safety_scorer(config: Config, settings: Serve) -> Any:
    """Return the scorer of the safety filter; None where the filter is off."""
    if not settings.safety:
        return None
    from alignlab.config.evaluation import Toxicity
    from alignlab.evaluation.measures.toxicity import scorer

    measured = config.measure.get("toxicity")
    assert isinstance(measured, Toxicity)
    return scorer(config, measured)
