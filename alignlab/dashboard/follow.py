"""Server-sent events: what runs append to their metrics, and that the table of runs has changed."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from alignlab.dashboard.runs import Index
from alignlab.runtime.run_files import METRICS

INTERVAL = 0.5  # seconds between two looks
BEAT = 30  # looks after which a comment keeps the connection open
MOST = 1_000_000  # bytes that are read at once


class Tail:
    """The lines that are appended to the metrics of a run's stages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.read_to: dict[str, int] = {path.parent.name: size(path) for path in self.files()}

    def files(self) -> Iterator[Path]:
        """Yield the metrics of all stages."""
        with suppress(OSError):
            yield from sorted(path for path in self.folder.glob(f"*/{METRICS}") if not path.is_symlink())

    def new(self) -> list[dict[str, Any]]:
        """Return the complete lines that were added since the last call; a file that was cut is read from its start."""
        lines = []
        for path in self.files():
            stage, start = path.parent.name, self.read_to.get(path.parent.name, 0)
            with suppress(OSError), path.open("rb") as stream:
                start = 0 if size(path) < start else start
                stream.seek(start)
                content = stream.read(MOST)
                end = content.rfind(b"\n") + 1
                self.read_to[stage] = start + end
                lines += [line | {"stage": stage} for line in map(read_line, content[:end].splitlines()) if line]
        return lines


def size(path: Path) -> int:
    """Return the size of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def read_line(text: bytes) -> dict[str, Any]:
    """Read a line of metrics; empty where it is damaged."""
    with suppress(ValueError, RecursionError):
        value = json.loads(text)
        if isinstance(value, dict):
            return value
    return {}


async def run_events(index: Index, name: str, folder: Path, ends: Callable[[], bool]) -> AsyncIterator[str]:
    """Yield an event per look that found new steps, with the last of each stage, and one where the state changes."""
    tail, state = Tail(folder), None
    async for _ in looks(ends):
        steps = await asyncio.to_thread(tail.new)
        if steps:
            yield event("steps", list({line["stage"]: line for line in steps}.values()))
        run = await asyncio.to_thread(index.get, name)
        now = run.state if run else "deleted"
        if now != state:
            yield event("state", now)
            state = now
        yield ""


async def table_events(index: Index, ends: Callable[[], bool]) -> AsyncIterator[str]:
    """Yield an event where the table of runs has changed."""
    before = None
    async for _ in looks(ends):
        runs = await asyncio.to_thread(index.runs)
        now = [(run.name, run.state, run.updated) for run in runs.values()]
        if before is not None and now != before:
            yield event("changed", len(now))
        before = now
        yield ""


async def looks(ends: Callable[[], bool]) -> AsyncIterator[int]:
    """Yield the number of each look until the server stops."""
    number = 0
    while not ends():
        yield number
        number += 1
        await asyncio.sleep(INTERVAL)


async def stream(events: AsyncIterator[str]) -> AsyncIterator[str]:
    """Yield events, and now and then a comment that keeps the connection open."""
    yield ": open\n\n"
    quiet = 0
    async for text in events:
        quiet = 0 if text else quiet + 1
        if text:
            yield text
        elif quiet % BEAT == 0:
            yield ": still here\n\n"


def event(kind: str, data: Any) -> str:
    """Return one server-sent event; JSON holds no line feed."""
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"
