"""The one writer of the store: a thread that commits in groups.

Operations that arrive while a group is written to the disk form the next group. An operation's future is resolved after
its group's commit, so what is acknowledged is on the disk. An operation raises a `Problem` before it writes anything;
after any other error the group is rolled back and its operations are run one by one.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any, NamedTuple

import sqlalchemy as sa

from alignlab.serving.problems import Problem

log = logging.getLogger("alignlab")

GROUP = 256  # operations in a commit, at most

Operation = Callable[[sa.Connection], Any]


class Pending(NamedTuple):
    """An operation that waits to be written, and its result."""

    operation: Operation
    result: "Future[Any]"


class Writer:
    """Runs operations in their order, in a thread of its own."""

    def __init__(self, engine: sa.Engine, observe: Callable[[float, int], None]) -> None:
        self.engine, self.observe = engine, observe
        self.queue: SimpleQueue[Pending | None] = SimpleQueue()
        self.thread = Thread(target=self.run, name="store-writer", daemon=True)
        self.thread.start()

    def submit(self, operation: Operation) -> "Future[Any]":
        """Queue an operation; the future holds what it returns, once that is on the disk."""
        result: Future[Any] = Future()
        result.set_running_or_notify_cancel()
        self.queue.put(Pending(operation, result))
        return result

    def close(self) -> None:
        """Write what is queued, and stop."""
        self.queue.put(None)
        self.thread.join()

    def run(self) -> None:
        """Write groups until `close` is called."""
        while (first := self.queue.get()) is not None:
            group, ended = [first], False
            while len(group) < GROUP:
                try:
                    pending = self.queue.get_nowait()
                except Empty:
                    break
                if pending is None:
                    ended = True
                    break
                group.append(pending)
            self.write(group)
            if ended:
                return

    def write(self, group: Sequence[Pending]) -> None:
        """Commit a group, or its operations one by one where the group fails; resolve their futures."""
        start = monotonic()
        try:
            results = self.commit(group)
        except Exception as error:
            if len(group) == 1:
                log.error("the store did not take a record: %s", type(error).__name__)
                group[0].result.set_exception(error)
            else:
                for pending in group:
                    self.write([pending])
            return
        self.observe(monotonic() - start, len(group))
        for pending, value in zip(group, results, strict=True):
            if isinstance(value, Problem):
                pending.result.set_exception(value)
            else:
                pending.result.set_result(value)

    def commit(self, group: Sequence[Pending]) -> list[Any]:
        """Run operations in one transaction, and return their values or problems."""
        results: list[Any] = []
        with self.engine.begin() as connection:
            for pending in group:
                try:
                    results.append(pending.operation(connection))
                except Problem as problem:
                    results.append(problem)
        return results
