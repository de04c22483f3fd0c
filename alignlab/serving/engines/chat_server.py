"""The engine behind another server: any that speaks OpenAI's protocol, such as vLLM, SGLang, Ray Serve or KServe."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import httpx

from alignlab.serving.engines.protocol import Generation, Load, Part
from alignlab.serving.problems import Problem, busy

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
        self.client: httpx.AsyncClient | None = None

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
        try:
            async with aclosing(self.ask(generation)) as parts:  # type: ignore[type-var]
                async for part in parts:
                    yield part
        except httpx.TimeoutException as error:
            raise Problem(504, "timeout", f"the model's server did not answer in {self.timeout:g} s") from error
        except httpx.HTTPError as error:
            what = f"the model's server cannot be reached ({type(error).__name__})"
            raise Problem(503, "unavailable", what, {"Retry-After": "5"}) from error
        finally:
            self.active -= 1
            self.places.release()

    async def ask(self, generation: Generation) -> AsyncIterator[Part]:
        """Request a stream, and yield its parts; the last one has the reason and the counts of tokens."""
        if self.client is None:  # a client belongs to the event loop that uses it
            self.client = httpx.AsyncClient(timeout=self.timeout, limits=httpx.Limits(max_connections=self.max_batch))
        reason = ""
        counts: Mapping[str, Any] = {}
        async with self.client.stream("POST", self.url, json=self.body(generation), headers=self.headers) as response:
            if response.status_code != 200:
                raise await refused(response)
            async for line in response.aiter_lines():
                data = line.removeprefix("data:").strip()
                if not line.startswith("data:") or data == "[DONE]":
                    continue
                event = parse(data)
                counts = event.get("usage") or counts
                for choice in event.get("choices") or ():
                    reason = choice.get("finish_reason") or reason
                    if text := (choice.get("delta") or {}).get("content"):
                        yield Part(text)
        if not reason:
            raise Problem(502, "bad_gateway", "the model's server ended its stream early")
        prompt, completion = (int(counts.get(f"{kind}_tokens") or 0) for kind in ("prompt", "completion"))
        yield Part("", REASONS.get(reason, "stop"), prompt, completion)

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


def parse(data: str) -> Mapping[str, Any]:
    """Return an event; raises a `Problem` where it is broken, or an error."""
    try:
        event = json.loads(data)
    except ValueError:
        event = None
    if not isinstance(event, dict) or "error" in event:
        raise Problem(502, "bad_gateway", "the model's server sent an error in its stream")
    return event


async def refused(response: httpx.Response) -> Problem:
    """Return the problem that tells of a refusal; the server's own text may name what a client must not see."""
    if response.status_code == 429:
        seconds = response.headers.get("retry-after", "1")
        return busy("the model's server is busy", int(seconds) if seconds.isdigit() else 1)
    if response.status_code in {400, 422}:
        return Problem(422, "invalid_request", "the model's server refuses this request")
    return Problem(502, "bad_gateway", f"the model's server answers {response.status_code}")
