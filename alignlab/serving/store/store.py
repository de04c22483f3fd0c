"""The store of answers and feedback: one writer, and readers beside it."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool

from alignlab.serving.store.database import connect
from alignlab.serving.store.writer import Operation, Writer

Value = TypeVar("Value")


def ignore_commit(_seconds: float, _size: int) -> None:
    """Do nothing with the time of a commit."""


class Store:
    """A database with its writer; `observe` is called with the seconds and the size of each commit."""

    def __init__(self, place: str, observe: Callable[[float, int], None] = ignore_commit) -> None:
        self.engine = connect(place)
        self.writer = Writer(self.engine, observe)

    async def write(self, operation: Operation) -> Any:
        """Run an operation, and return its value once it is on the disk; a client that leaves does not stop it."""
        return await asyncio.shield(asyncio.wrap_future(self.writer.submit(operation)))

    async def read(self, query: Callable[[sa.Connection], Value]) -> Value:
        """Run a query in a thread of the pool."""
        return await run_in_threadpool(self.read_now, query)

    def read_now(self, query: Callable[[sa.Connection], Value]) -> Value:
        """Run a query in this thread."""
        with self.engine.connect() as connection:
            return query(connection)

    def close(self) -> None:
        """Write what is queued, and close all connections."""
        self.writer.close()
        self.engine.dispose()
