"""Send feedback to other servers, in a thread of its own: the store stays the record, and no request waits for them.

An export that fails is counted and logged, and is not repeated. What is still queued when the server is killed is not
exported.
"""

import logging
from collections.abc import Callable, Sequence
from queue import Full, Queue
from threading import Thread
from typing import Protocol

from alignlab.serving.exporters.scores import Exported
from alignlab.serving.metrics import Metrics

log = logging.getLogger("alignlab")

WAITING = 10_000  # records that wait to be exported, at most; further ones are dropped
STOP_SECONDS = 10.0  # to export what is queued when the server ends

Work = Callable[["Exporter"], None]


class Exporter(Protocol):
    """Sends feedback to one server."""

    name: str

    def send(self, exported: Exported) -> None:
        """Send a record of feedback, new, overwritten or withdrawn."""
        ...

    def forget(self, user: str) -> None:
        """Delete what was sent of a user's answers, where the server can delete."""
        ...

    def close(self) -> None:
        """Send what is buffered."""
        ...


def forget(exporter: Exporter, user: str, withdrawn: Sequence[Exported]) -> None:
    """Withdraw a user's feedback, and delete the user's answers."""
    for exported in withdrawn:
        exporter.send(exported)
    exporter.forget(user)


class Exports:
    """The queue of records for all exporters."""

    def __init__(self, exporters: Sequence[Exporter], metrics: Metrics) -> None:
        self.exporters, self.metrics = exporters, metrics
        self.queue: Queue[Work | None] = Queue(WAITING)
        self.thread = Thread(target=self.run, name="export", daemon=True)
        if exporters:
            self.thread.start()

    def submit(self, work: Work) -> None:
        """Queue some work for each exporter; drop and count it where the queue is full."""
        if not self.exporters:
            return
        try:
            self.queue.put_nowait(work)
        except Full:
            for exporter in self.exporters:
                self.metrics.exports.labels(exporter.name, "dropped").inc()

    def run(self) -> None:
        """Do the work of the queue until `close` is called."""
        while (work := self.queue.get()) is not None:
            for exporter in self.exporters:
                self.try_once(exporter, work)

    def try_once(self, exporter: Exporter, work: Work) -> None:
        """Do some work and count it; an error is logged by its kind, since its text may hold a prompt."""
        try:
            work(exporter)
        except MemoryError:
            raise
        except Exception as error:
            log.error("an export to %s failed: %s", exporter.name, type(error).__name__)
            self.metrics.exports.labels(exporter.name, "failed").inc()
        else:
            self.metrics.exports.labels(exporter.name, "sent").inc()

    def close(self) -> None:
        """Export what is queued, for some seconds."""
        if not self.exporters:
            return
        self.queue.put(None)
        self.thread.join(STOP_SECONDS)
        for exporter in self.exporters:
            self.try_once(exporter, lambda each: each.close())
