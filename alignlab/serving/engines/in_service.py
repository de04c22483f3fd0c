"""The engines that answer, by their models' names; one can be replaced while its requests run.

A request holds the engine that it began with until its answer is complete. An engine that was replaced gets no new
requests, and is closed when nobody holds it. All but `close` runs in the event loop's thread.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from alignlab.serving.engines.protocol import Engine

POLL = 0.02  # seconds between two looks whether an engine that was replaced is free


class EnginesInService(Mapping[str, Engine]):
    """Engines by their models' names."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self.by_name = dict(engines)
        self.holders: Counter[int] = Counter()  # requests by the identity of their engine
        self.retiring: dict[asyncio.Task[None], Engine] = {}

    def __getitem__(self, name: str) -> Engine:
        return self.by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)

    @contextmanager
    def held(self, name: str) -> Iterator[Engine]:
        """Give the engine of a name, which is not closed as long as it is held."""
        engine = self.by_name[name]
        self.holders[id(engine)] += 1
        try:
            yield engine
        finally:
            self.holders[id(engine)] -= 1

    def replace(self, engine: Engine) -> None:
        """Let an engine answer from now on; the one before it is closed when its last request is done."""
        old = self.by_name[engine.name]
        self.by_name[engine.name] = engine
        task = asyncio.create_task(self.retire(old))
        self.retiring[task] = old
        task.add_done_callback(self.forget)

    async def retire(self, engine: Engine) -> None:
        """Close an engine when nobody holds it."""
        while self.holders[id(engine)]:
            await asyncio.sleep(POLL)
        del self.holders[id(engine)]
        await asyncio.to_thread(engine.close)

    def forget(self, task: asyncio.Task[None]) -> None:
        """Free the engine that a task has closed."""
        if not task.cancelled():
            del self.retiring[task]
        if gc.get_freeze_count():
            freeze_objects()

    def close(self) -> None:
        """Close all engines."""
        for engine in (*self.by_name.values(), *self.retiring.values()):
            engine.close()


def freeze_objects() -> None:
    """Exempt all objects that are in use from garbage collection, and free the others.

    A full collection would read the objects of all libraries: for 0.3 s no client would get a token. A model has
    reference cycles, so one that is no longer used is freed by the next call.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
