"""The engine behind another server: any that speaks OpenAI's protocol, such as vLLM, SGLang, Ray Serve or KServe."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, NamedTuple

import httpx

from alignlab.models.chat_client import MOST_TOKENS
from alignlab.runtime.http_client import bounded_json, tls
from alignlab.serving.engines.protocol import Generation, Load, Part
from alignlab.serving.problems import Problem, busy

LARGEST_STREAM, LARGEST_LINE = 16_000_000, 1_000_000  # bytes
REASONS = {"stop": "stop", "length": "length"}


class ChatServerEngine:
    """Passes requests on to a server; at most `max_batch` at once, and `max_queue` wait."""

    def __init__(self, url: str, model: str, key: str, max_batch: int, max_queue: int, timeout: float) -> None:
        self.name, self.version = model, f"{model} at {httpx.URL(url).host}"[:64]
        self.url, self.timeout = f"{url.rstrip('/')}/chat/completions", timeout
        self.max_batch, self.max_queue = max_batch, max_queue
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.places = asyncio.Semaphore(max_batch)
        self.waiting = self.active = 0
        self.unused: list[httpx.AsyncClient] = []  # each with one connection, of the event loop that uses it

    async def complete(self, generation: Generation) -> AsyncIterator[Part]:
        """Yield the parts of the server's stream; closing the iterator closes the connection."""
        if self.waiting + self.active >= self.max_batch + self.max_queue:
            raise busy(f"{self.max_queue} requests wait already")
        self.waiting += 1
        try:
            await self.places.acquire()
        finally:
            self.waiting -= 1
        self.active += 1
        client = self.unused.pop() if self.unused else self.connect()
        try:
            async with aclosing(self.ask(client, generation)) as parts:  # type: ignore[type-var]
                async for part in parts:
                    yield part
        except (httpx.TimeoutException, TimeoutError) as error:
            raise Problem(504, "timeout", f"the model's server did not answer in {self.timeout:g} s") from error
        except httpx.HTTPError as error:
            what = f"the model's server cannot be reached ({type(error).__name__})"
            raise Problem(503, "unavailable", what, {"Retry-After": "5"}) from error
        finally:
            self.active -= 1
            self.unused.append(client)
            self.places.release()

    def connect(self) -> httpx.AsyncClient:
        """Return a client for one request at a time.

        In httpx's asynchronous pool 50 requests wait for each other while connections are idle: it serves a quarter.
        """
        return httpx.AsyncClient(timeout=self.timeout, headers={"Accept-Encoding": "identity"}, verify=tls(True))

    async def ask(self, client: httpx.AsyncClient, generation: Generation) -> AsyncIterator[Part]:
        """Request a stream, and yield its parts; the last one has the reason and the counts of tokens."""
        reason, counts = "", Counts(0, 0)
        deadline = asyncio.get_running_loop().time() + self.timeout
        request = client.build_request("POST", self.url, json=self.body(generation), headers=self.headers)
        async with asyncio.timeout_at(deadline):
            response = await client.send(request, stream=True)
        async with aclosing(response):
            if response.status_code != 200:
                raise refused(response)
            async for data in lines(response, deadline):
                event = parse(data)
                counts = event.counts or counts
                reason = event.reason or reason
                for text in event.texts:
                    yield Part(text)
        if not reason:
            raise broken("ended its stream early")
        yield Part("", REASONS.get(reason, "stop"), *counts)

    def body(self, generation: Generation) -> dict[str, Any]:
        """Return the body of a request."""
        body: dict[str, Any] = {
            "model": self.name,
            "messages": list(generation.turns),
            "max_tokens": generation.max_tokens,
            "temperature": generation.temperature,
            "top_p": generation.top_p,
            "seed": generation.seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        return body | ({"stop": list(generation.stop)} if generation.stop else {})

    def load(self) -> Load:
        """Return how many requests wait here, and how many the server has."""
        return Load(self.waiting, self.active)

    def close(self) -> None:
        """Do nothing: the event loop that owned the connections has ended with them."""


class Counts(NamedTuple):
    """Tokens that the server counted."""

    prompt: int
    completion: int


class Event(NamedTuple):
    """What an event adds: texts, the reason why the completion ended, and counts of tokens."""

    texts: list[str]
    reason: str
    counts: Counts | None


async def lines(response: httpx.Response, deadline: float) -> AsyncIterator[bytes]:
    """Yield the data of each event; raises a `Problem` for a stream that is compressed, or of unreasonable size."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise broken("compresses its stream, which was not asked for")
    rest, total, chunks = b"", 0, response.aiter_raw()
    while True:
        async with asyncio.timeout_at(deadline):  # however slowly bytes arrive
            if (chunk := await anext(chunks, None)) is None:
                return
        total += len(chunk)
        *complete, rest = (rest + chunk).split(b"\n")
        if total > LARGEST_STREAM or len(rest) > LARGEST_LINE:
            raise broken("sends a stream of unreasonable size")
        for line in complete:
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                yield data


def parse(data: bytes) -> Event:
    """Read an event; raises a `Problem` where it is broken, or an error."""
    try:
        event = bounded_json(data)
        choices, usage = event.get("choices") or (), event.get("usage")
        deltas = [(choice.get("delta") or {}).get("content") for choice in choices]
        reasons = [str(choice.get("finish_reason") or "") for choice in choices]
        counts = Counts(*(int(usage.get(f"{kind}_tokens") or 0) for kind in Counts._fields)) if usage else None
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise broken("sent an event in its stream that is none") from None
    if "error" in event:
        raise broken("sent an error in its stream")
    if counts and not 0 <= min(counts) <= max(counts) <= MOST_TOKENS:
        raise broken("counts no tokens that can be")
    return Event([str(text) for text in deltas if text], next(filter(None, reasons), ""), counts)


def broken(what: str) -> Problem:
    """Return the problem that tells of a server whose answer cannot be used."""
    return Problem(502, "bad_gateway", f"the model's server {what}")


def refused(response: httpx.Response) -> Problem:
    """Return the problem that tells of a refusal; the server's own text may name what a client must not see."""
    if response.status_code == 429:
        seconds = response.headers.get("retry-after", "1")
        return busy("the model's server is busy", int(seconds) if re.fullmatch("[0-9]{1,5}", seconds) else 1)
    if response.status_code in {400, 422}:
        return Problem(422, "invalid_request", "the model's server refuses this request")
    return Problem(502, "bad_gateway", f"the model's server answers {response.status_code}")
