"""Serve a model over HTTP, with a store of feedback: `task=serve task.model=outputs/latest`."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.config.schema import Config
from alignlab.config.settings import path_in_home
from alignlab.config.task import Serve
from alignlab.errors import failure, mistake
from alignlab.models.gguf_files import SUFFIX
from alignlab.models.references import Source
from alignlab.pipeline.language_models import check_language_model, language_model
from alignlab.pipeline.registry import Pointer, Registry
from alignlab.serving.listening import address
from alignlab.serving.requirements import check_installed

if TYPE_CHECKING:
    from alignlab.serving.follow import Followed


def plan(config: Config) -> Iterator[str]:
    """Yield the line of `dry_run=true`."""
    settings = check(config)
    followed = [f"the model in service of {settings.registry}"] if settings.registry else []
    names = [settings.url_model] if settings.engine == "url" else [*followed, *models(settings).values()]
    yield f"serve {' and '.join(map(str, names))} at {address(settings.host, settings.port)}: engine {settings.engine}"


def run(config: Config, folder: Path) -> None:
    """Serve until SIGTERM or Ctrl-C; the last line printed is the server's address."""
    settings = check(config)
    from alignlab.serving.server import Models, serve

    def load_models() -> Models:
        """Load all that answers."""
        followed = followed_registry(config, settings) if settings.registry else None
        loaded = engines(config, settings)
        if followed:
            engine = followed.load(followed.loaded)
            loaded = {engine.name: engine, **loaded}
        return Models(loaded, safety_scorer(config, settings), followed, exporters(config, settings))

    serve(settings, load_models)
    with suppress(OSError):
        folder.rmdir()


def check(config: Config) -> Serve:
    """Return the task's settings; raises a `Mistake` where a package is missing or one names no language model."""
    settings = config.task
    assert isinstance(settings, Serve)
    check_installed()
    if settings.registry:
        in_service(settings.registry)
    if settings.engine != "url":
        for place, named in models(settings).items():
            check_language_model(place, named)
    return settings


def models(settings: Serve) -> dict[str, str]:
    """Return the models to serve by the settings that name them."""
    named = {"task.model": None if settings.registry else settings.model, "task.beside": settings.beside}
    return {place: model for place, model in named.items() if model}


def in_service(folder: Path) -> Pointer:
    """Return the model that a registry has in service; raises a `Mistake` where it has none."""
    pointer = Registry(folder).current()
    if pointer is None:
        raise mistake("task.registry", f"{folder} has no model in service", "put one into it first: task=promote")
    return pointer


def followed_registry(config: Config, settings: Serve) -> "Followed":
    """Return the registry to follow, and how a model of it is loaded: under one name, whatever its version."""
    from alignlab.serving.follow import Followed

    assert settings.registry is not None
    registry = Registry(settings.registry)

    def load_version(pointer: Pointer) -> Any:
        model = registry.model_folder(pointer)
        engine = load(config, settings, "task.registry", str(model))
        if engine.version != pointer["fingerprint"]:
            engine.close()
            raise failure(str(model), "differs from its hash in the registry", "put another version into service")
        engine.name = registry.folder.absolute().name
        engine.version = f"v{pointer['version']}-{pointer['fingerprint']}"
        return engine

    return Followed(registry, load_version, in_service(settings.registry), settings.registry_poll)


def engines(config: Config, settings: Serve) -> dict[str, Any]:
    """Load the engines by their models' names."""
    if settings.engine == "url":
        from alignlab.serving.engines.chat_server import ChatServerEngine

        assert settings.url is not None
        assert settings.url_model is not None
        key = os.environ[settings.key_env] if settings.key_env else ""
        return {settings.url_model: ChatServerEngine(settings.url, settings.url_model, key, *limits(settings))}
    loaded = [load(config, settings, place, named) for place, named in models(settings).items()]
    if len({engine.name for engine in loaded}) < len(loaded):
        for engine, named in zip(loaded, models(settings).values(), strict=True):
            engine.name = named
    return {engine.name: engine for engine in loaded}


def load(config: Config, settings: Serve, place: str, named: str) -> Any:
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
    return kind(served_name(source), digest_files([source.path]), model, tokenizer, *limits(settings))


def limits(settings: Serve) -> tuple[int, int, float]:
    """Return the limits of an engine: requests in the batch, requests that wait, seconds for an answer."""
    return settings.max_batch, settings.max_queue, settings.timeout


def served_name(source: Source) -> str:
    """Return the name of a model for clients, who need not see this machine's folders."""
    named = path_in_home(Path(source.name)).absolute()
    if not named.exists():
        return source.name
    folder = source.path if source.path.is_relative_to(named) else named  # a model that was prepared is in the cache
    if folder.name == "model" and folder.parent.name:
        folder = folder.parent
    return folder.name.removesuffix(SUFFIX)


def safety_scorer(config: Config, settings: Serve) -> Any:
    """Return the scorer of the safety filter; None where the filter is off."""
    if not settings.safety:
        return None
    from alignlab.config.evaluation import Toxicity
    from alignlab.evaluation.measures.toxicity import scorer

    measured = config.measure.get("toxicity")
    assert isinstance(measured, Toxicity)
    return scorer(config, measured)


def exporters(config: Config, settings: Serve) -> list[Any]:
    """Return the exporters of feedback; raises a `Mistake` where a package is missing."""
    from alignlab.serving.exporters.mlflow_exporter import MlflowExporter
    from alignlab.serving.exporters.opentelemetry_exporter import OpenTelemetryExporter

    kinds = {"mlflow": lambda: MlflowExporter(config.tracking), "opentelemetry": OpenTelemetryExporter}
    return [kinds[name]() for name in dict.fromkeys(settings.export_to)]
