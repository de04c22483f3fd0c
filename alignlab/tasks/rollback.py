"""Put an earlier model of a registry back into service: `task=rollback task.registry=registry`."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from alignlab.config.schema import Config
from alignlab.config.task import Rollback
from alignlab.pipeline.registry import Registry

COMPUTES = False


def plan(config: Config) -> Iterator[str]:
    """Yield the line of `dry_run=true`."""
    settings = config.task
    assert isinstance(settings, Rollback)
    wanted = "the version before" if settings.version is None else f"version {settings.version}"
    yield f"put {wanted} of {settings.registry} back into service"


def run(config: Config, folder: Path) -> None:
    """Move the pointer of the registry; the last line printed is the folder of the model that is in service now."""
    settings = config.task
    assert isinstance(settings, Rollback)
    registry = Registry(settings.registry)
    pointer = registry.rollback(settings.version)
    print(f"version {pointer['version']} is in service")
    print(registry.model_folder(pointer))
    with suppress(OSError):
        folder.rmdir()
