"""Follow a registry: load the model that it puts into service, and switch to it without dropping a request."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import NamedTuple

from alignlab.chat import Turn
from alignlab.errors import Explained
from alignlab.pipeline.registry import Pointer, Registry
from alignlab.runtime.progress import say
from alignlab.serving.engines.protocol import Engine, Generation
from alignlab.serving.problems import Problem
from alignlab.serving.service import Service

log = logging.getLogger("alignlab")

TRIAL: list[Turn] = [{"role": "user", "content": "Hello"}]


class Followed(NamedTuple):
    """A registry, how a model of it is loaded, the one that is loaded, and the seconds between two looks."""

    registry: Registry
    load: Callable[[Pointer], Engine]
    loaded: Pointer
    seconds: float


async def follow(service: Service, followed: Followed) -> None:
    """Switch to each model that the registry points to; one that cannot be loaded is logged, and left out."""
    seen = followed.loaded
    while True:
        await asyncio.sleep(followed.seconds)
        try:
            pointer = await asyncio.to_thread(followed.registry.current)
            if pointer is None or pointer == seen:
                continue
            seen = pointer
            await switch(service, await asyncio.to_thread(followed.load, pointer))
        except (Explained, Problem, OSError, RuntimeError, ValueError, MemoryError):
            service.metrics.switches.labels("failed").inc()
            log.exception("the registry's model was not loaded; the one before goes on answering")
        else:
            service.metrics.switches.labels("switched").inc()
            say(f"version {pointer['version']} is in service")


async def switch(service: Service, engine: Engine) -> None:
    """Let an engine answer a trial, and then the server's requests; raises a `Problem` where it cannot answer."""
    try:
        async with aclosing(engine.complete(Generation(TRIAL, 1, 0.0, 1.0, 0))) as parts:  # type: ignore[type-var]
            async for _ in parts:
                pass
    except Exception:
        await asyncio.to_thread(engine.close)
        raise
    service.engines.replace(engine)
