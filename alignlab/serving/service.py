"""Complete a conversation for a user: choose the engine, stream its text, count, and record the answer."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from starlette.requests import Request

from alignlab.chat import Turn
from alignlab.config.task import Serve
from alignlab.serving.engines.in_service import EnginesInService
from alignlab.serving.engines.protocol import Engine, Generation, Part
from alignlab.serving.exporters.exports import Exporter, Exports, forget
from alignlab.serving.exporters.scores import read_subjects, withdrawals
from alignlab.serving.keys import Keyring
from alignlab.serving.limits import Rates
from alignlab.serving.metrics import Metrics
from alignlab.serving.problems import Problem, missing
from alignlab.serving.safety import Safety
from alignlab.serving.store import records
from alignlab.serving.store.records import Answer, Row, User, new_id
from alignlab.serving.store.store import Store

Value = TypeVar("Value")


@dataclass(frozen=True)
class Asked:
    """A conversation that a user wants to have continued; None takes the server's setting."""

    user: User
    turns: Sequence[Turn]
    model: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: Sequence[str] = ()
    streams: bool = False


@dataclass
class Completed:
    """A completion that grows: `text` and `last` are complete at the end of `Service.stream`.

    `version` is that of the engine that writes it, once `Service.stream` has begun.
    """

    id: str
    model: str
    version: str
    generation: Generation
    text: str = ""
    last: Part = field(default_factory=lambda: Part(""))
    safety: dict[str, float] = field(default_factory=dict)


class Service:
    """All that the routes share: settings, engines, store, keys, limits and metrics."""

    def __init__(
        self,
        settings: Serve,
        engines: Mapping[str, Engine],
        store: Store,
        metrics: Metrics,
        safety: Safety | None = None,
        exporters: Sequence[Exporter] = (),
    ) -> None:
        self.settings, self.store, self.metrics, self.safety = settings, store, metrics, safety
        self.exports = Exports(exporters, metrics)
        self.engines = EnginesInService(engines)
        self.keyring = Keyring(store, metrics, settings.wrong_keys_per_minute)
        self.rates = Rates(settings.requests_per_minute, "too many requests of this user")
        metrics.watch(self.engines)

    def engine(self, name: str | None) -> Engine:
        """Return an engine by its model's name; the first one where no name is given."""
        if name is None:
            return next(iter(self.engines.values()))
        if name not in self.engines:
            raise missing(f"the model {name}")
        return self.engines[name]

    def begin(self, asked: Asked) -> Completed:
        """Return a completion without text; raises a `Problem` where a limit is exceeded."""
        engine, settings = self.engine(asked.model), self.settings
        if asked.max_tokens is not None and asked.max_tokens > settings.max_new_tokens:
            what = f"max_tokens: this server writes at most {settings.max_new_tokens} tokens"
            raise Problem(422, "invalid_request", what)
        generation = Generation(
            asked.turns,
            asked.max_tokens or settings.max_new_tokens,
            settings.temperature if asked.temperature is None else asked.temperature,
            settings.top_p if asked.top_p is None else asked.top_p,
            secrets.randbits(32) if asked.seed is None else asked.seed,
            asked.stop,
            asked.streams,
        )
        return Completed(new_id("ans"), engine.name, engine.version, generation)

    async def stream(self, user: User, completed: Completed) -> AsyncIterator[Part]:
        """Yield the parts of a completion, and record the answer before the last one; a filter may hold them back."""
        start, first = monotonic(), completed.generation.streams
        with self.engines.held(completed.model) as engine:
            completed.version = engine.version
            await self.check_prompt(completed)
            async with aclosing(engine.complete(completed.generation)) as parts:  # type: ignore[type-var]
                async for part in parts:
                    if first:
                        first = False
                        self.metrics.first.labels(completed.model).observe(monotonic() - start)
                    completed.text += part.text
                    if part.finish_reason:
                        part = await self.check_completion(completed, part)
                        self.finish(user, completed, monotonic() - start)
                    elif self.holds_back:
                        continue
                    yield part

    @property
    def holds_back(self) -> bool:
        """Return whether a completion is scored before any of it is sent."""
        return self.safety is not None and "output" in self.safety.places

    async def check_prompt(self, completed: Completed) -> None:
        """Raise a `Problem` where the filter blocks the last message."""
        if self.safety is None:
            return
        score, blocked = await self.safety.check("input", completed.generation.turns[-1]["content"])
        if score is not None:
            completed.safety["input"] = score
        if blocked:
            raise Problem(422, "content_filter", "the safety filter blocks this message")

    async def check_completion(self, completed: Completed, last: Part) -> Part:
        """Return the part to send at the end: the held back text, or nothing where the filter blocks it."""
        if self.safety is not None:
            score, blocked = await self.safety.check("output", completed.text)
            if score is not None:
                completed.safety["output"] = score
                completed.text = "" if blocked else completed.text
                last = last._replace(text=completed.text, finish_reason="safety" if blocked else last.finish_reason)
        completed.last = last
        return last

    async def complete(self, user: User, completed: Completed) -> Completed:
        """Wait for a whole completion."""
        async for _ in self.stream(user, completed):
            pass
        return completed

    def finish(self, user: User, completed: Completed, seconds: float) -> None:
        """Count a completion, and queue its record; feedback on it is written after it, since there is one writer."""
        last, generation = completed.last, completed.generation
        self.metrics.latency.labels(completed.model).observe(seconds)
        self.metrics.tokens.labels(completed.model, "prompt").inc(last.prompt_tokens)
        self.metrics.tokens.labels(completed.model, "completion").inc(last.completion_tokens)
        answer = Answer(
            completed.id,
            user.name,
            completed.model,
            completed.version,
            generation.turns,
            completed.text,
            last.finish_reason or "",
            {name: getattr(generation, name) for name in ("max_tokens", "temperature", "top_p", "seed")},
        )
        with_text = self.settings.store_text
        self.store.writer.submit(lambda connection: records.add_answer(connection, answer, with_text))

    async def give_feedback(
        self, user: User, kind: str, subject: str, value: Mapping[str, Any], key: str | None = None
    ) -> Row:
        """Store and count feedback on an answer or item; it is on the disk when its row is returned."""
        row: Row = await self.store.write(
            lambda connection: records.give_feedback(connection, user, kind, subject, value, key)
        )
        self.metrics.feedback.labels(kind, "given").inc()
        self.export(row)
        return row

    async def withdraw(self, user: User, feedback_id: str) -> Row:
        """Withdraw feedback, and count it."""
        row: Row = await self.store.write(lambda connection: records.withdraw(connection, user, feedback_id))
        self.metrics.feedback.labels(row["kind"], "withdrawn").inc()
        self.export(row)
        return row

    async def delete_user(self, name: str) -> dict[str, int]:
        """Delete what is stored of a user, and what was exported."""
        exported = await self.store.read(lambda connection: withdrawals(connection, name))
        deleted: dict[str, int] = await self.store.write(lambda connection: records.delete_user(connection, name))
        self.exports.submit(lambda exporter: forget(exporter, name, exported))
        return deleted

    def export(self, row: Row) -> None:
        """Queue a record of feedback for the exporters."""
        self.exports.submit(lambda exporter: exporter.send(self.store.read_now(partial(read_subjects, feedback=row))))

    def close(self) -> None:
        """Close the engines, and export what is queued."""
        self.engines.close()
        self.exports.close()


async def unless_disconnected(request: Request, work: Awaitable[Value]) -> Value:
    """Return the result of some work; cancel it as soon as the client disconnects."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Problem(400, "disconnected", "the client has left")
        return task.result()
    finally:
        for each in (task, watch):
            if not each.done():
                each.cancel()
                with suppress(asyncio.CancelledError):
                    await each


async def disconnected(request: Request) -> None:
    """Wait until the client disconnects; its body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
