"""The engine in this process: one thread adds a token to every row of the batch, again and again.

Rows join before a step and leave after it. A client that has disconnected frees its row before the next step. Texts go
to the event loop once per step, and the next step begins when they are sent.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from threading import Condition, Event, Thread
from time import monotonic
from typing import TYPE_CHECKING

from alignlab.models.continuous_batch import Batch, Picked, Row
from alignlab.models.sampling import to_completion
from alignlab.serving.engines.prompts import PromptEncoder
from alignlab.serving.engines.protocol import Generation, Load, Part
from alignlab.serving.engines.stop_text import GrowingText
from alignlab.serving.problems import Problem, busy

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger("alignlab")

PREFILL = 4096  # tokens of prompts that join in one step, with their padding, at most; a longer prompt joins alone
TURNS = 4  # of the event loop after each step; the first sends the parts, the others take new requests
LONGEST_SEND = 1.0  # seconds to wait for the event loop, which may have ended


class Served:
    """A request: its row in the batch, and where its parts go."""

    def __init__(self, row: Row, generation: Generation, text: GrowingText, deadline: float) -> None:
        self.row, self.generation, self.text, self.deadline = row, generation, text, deadline
        self.loop = asyncio.get_running_loop()
        self.parts: asyncio.Queue[Part | Problem] = asyncio.Queue()
        self.left = False  # set when the client no longer waits

    def part(self, picked: Picked) -> Part | None:
        """Add a token; return the part to send now, if any."""
        last, reason = picked.last, None
        if self.generation.streams or self.generation.stop or last:
            self.text.add(self.row.tokens)
        if last:
            reason = "stop" if self.text.finished else "length"
        if self.text.stopped:
            last, reason = True, "stop"
        elif not last and monotonic() > self.deadline:
            self.text.add(self.row.tokens)
            last, reason = True, "timeout"
        if last:
            return Part(self.text.rest(), reason, len(self.row.ids), len(self.row.tokens))
        new = self.text.new() if self.generation.streams else ""
        return Part(new) if new else None


class EmbeddedEngine:
    """Serves a model that is loaded in this process, to `max_batch` requests at once and `max_queue` waiting ones."""

    def __init__(
        self,
        name: str,
        version: str,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        max_batch: int,
        max_queue: int,
        timeout: float,
    ) -> None:
        self.name, self.version, self.tokenizer = name, version, tokenizer
        self.max_batch, self.max_queue, self.timeout = max_batch, max_queue, timeout
        self.batch = Batch(model, tokenizer)
        self.prompts = PromptEncoder(model, tokenizer)
        self.waiting: deque[Served] = deque()
        self.active: dict[int, Served] = {}  # by the identity of the row
        self.changed = Condition()
        self.closed = False
        self.thread = Thread(target=self.run, name="decode", daemon=True)
        self.thread.start()

    async def complete(self, generation: Generation) -> AsyncIterator[Part]:
        """Yield the parts of a completion; closing the iterator frees its row."""
        self.check_room()
        ids = await self.prompts.encode(generation)
        row = Row(ids, generation.max_tokens, generation.temperature, generation.top_p, generation.seed)
        text = GrowingText(lambda tokens: to_completion(self.tokenizer, tokens, self.batch.ends), generation.stop)
        served = Served(row, generation, text, monotonic() + self.timeout)
        self.join(served)
        try:
            while True:
                part = await served.parts.get()
                if isinstance(part, Problem):
                    raise part
                yield part
                if part.finish_reason:
                    return
        finally:
            served.left = True

    def check_room(self) -> None:
        """Raise a `Problem` where too many requests wait."""
        if self.closed:
            raise Problem(503, "unavailable", "the server is shutting down", {"Retry-After": "5"})
        if len(self.waiting) + len(self.active) >= self.max_batch + self.max_queue:
            raise busy(f"{self.max_queue} requests wait already")

    def join(self, served: Served) -> None:
        """Queue a request, and wake the thread."""
        with self.changed:
            self.check_room()
            self.waiting.append(served)
            self.changed.notify()

    def load(self) -> Load:
        """Return how many requests wait, and how many are in the batch."""
        return Load(len(self.waiting), len(self.active))

    def close(self) -> None:
        """End all completions, and stop the thread."""
        with self.changed:
            self.closed = True
            self.changed.notify()
        self.thread.join()
        self.prompts.close()

    def run(self) -> None:
        """Step until `close` is called; an error ends the requests of the batch, not the thread."""
        while not self.closed:
            try:
                joining = self.take()
                picked = self.batch.step([served.row for served in joining])
                self.send(picked)
            except Exception:
                log.exception("a decoding step failed")
                self.fail(Problem(500, "internal_error", "the engine failed; see the server's log"))
        self.fail(Problem(503, "unavailable", "the server is shutting down"))

    def take(self) -> list[Served]:
        """Remove requests that nobody waits for, and return those that join; waits while there is nothing to do."""
        gone = [served for served in self.active.values() if served.left]
        self.batch.remove([served.row for served in gone])
        for served in gone:
            del self.active[id(served.row)]
        joining: list[Served] = []
        with self.changed:
            self.changed.wait_for(lambda: self.waiting or self.active or self.closed)
            self.waiting = deque(served for served in self.waiting if not served.left)
            longest = 0
            while self.waiting and len(self.active) < self.max_batch and not self.closed:
                longest = max(longest, len(self.waiting[0].row.ids))
                if joining and longest * (len(joining) + 1) > PREFILL:
                    break
                joining.append(served := self.waiting.popleft())
                self.active[id(served.row)] = served
        return joining

    def send(self, picked: Sequence[Picked]) -> None:
        """Send the new parts of all rows to the event loop, and remove the rows that are finished."""
        parts: list[tuple[Served, Part | Problem]] = []
        ended: list[Row] = []
        for each in picked:
            served = self.active[id(each.row)]
            if part := served.part(each):
                parts.append((served, part))
                if part.finish_reason:
                    del self.active[id(each.row)]
                    if not each.last:
                        ended.append(each.row)
        self.batch.remove(ended)
        deliver(parts)

    def fail(self, problem: Problem) -> None:
        """End all requests of the batch with a problem; and those that wait, where the engine is closed."""
        failed = [*self.active.values(), *(self.waiting if self.closed else ())]
        self.active.clear()
        self.batch.clear()
        deliver([(served, problem) for served in failed])


def deliver(parts: Sequence[tuple[Served, Part | Problem]]) -> None:
    """Put parts into the queues of their requests, in the thread of the event loop, and wait until they are sent.

    Without the wait the event loop would rarely run: this thread releases the interpreter's lock for each tensor
    operation, and takes it again before the other thread has woken up.
    """
    if not parts:
        return
    loop, sent = parts[0][0].loop, Event()

    def put() -> None:
        for served, part in parts:
            served.parts.put_nowait(part)
        turn(TURNS)

    def turn(left: int) -> None:
        if left:
            loop.call_soon(turn, left - 1)
        else:
            sent.set()

    if not loop.is_closed():
        loop.call_soon_threadsafe(put)
        sent.wait(LONGEST_SEND)
