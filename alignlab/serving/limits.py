"""Limits of requests: the size and time of a body, the host, and the rate of a user or an address."""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from time import monotonic
from typing import Any

from starlette.responses import JSONResponse, Response

from alignlab.serving.metrics import Metrics
from alignlab.serving.problems import Problem, busy

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
)
NAMES = 10_000  # users or addresses whose rate is remembered, at most


def problem_response(problem: Problem) -> Response:
    """Return the response to a problem."""
    kind = "server_error" if problem.status >= 500 else "invalid_request_error"
    error = {"message": problem.message, "type": kind, "param": None, "code": problem.code}
    return JSONResponse({"error": error}, problem.status, problem.headers)


class Guard:
    """Refuses requests before they reach the application, adds headers, and counts responses.

    `hosts` are the names that a request may be addressed to, without ports; none allows any. They protect a server
    without keys on the loopback from web pages whose name points to it (DNS rebinding).
    """

    def __init__(
        self, app: Application, metrics: Metrics, max_body: int, body_timeout: float, hosts: Sequence[str] = ()
    ) -> None:
        self.app, self.metrics = app, metrics
        self.max_body, self.body_timeout, self.hosts = max_body, body_timeout, {host.encode() for host in hosts}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
                self.count(scope, message["status"])
            await send(message)

        try:
            self.check(dict(scope["headers"]))
            body = await self.read(receive)
        except Problem as problem:
            await problem_response(problem)(scope, receive, send_with_headers)
            return
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_read() -> Message:
            return unread.pop() if unread else await receive()

        await self.app(scope, receive_read, send_with_headers)

    def check(self, headers: MutableMapping[bytes, bytes]) -> None:
        """Raise a `Problem` for a host that is not allowed, or for a body that is announced as too large."""
        host = re.sub(rb":\d*$", b"", headers.get(b"host", b""))
        if self.hosts and host not in self.hosts:
            raise Problem(421, "misdirected", "this server answers to no such host")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > self.max_body:
            raise self.too_large()

    def too_large(self) -> Problem:
        """Build the problem of a body that is too large."""
        return Problem(413, "too_large", f"a body may have {self.max_body:,} bytes", {"Connection": "close"})

    async def read(self, receive: Receive) -> bytes:
        """Return the body; raises a `Problem` where it is too large or too slow."""
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(self.body_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem(400, "disconnected", "the client has left")
                    chunks.append(message.get("body", b""))
                    if sum(map(len, chunks)) > self.max_body:
                        raise self.too_large()
                    if not message.get("more_body"):
                        return b"".join(chunks)
        except TimeoutError as error:
            what = f"the body is not complete after {self.body_timeout:g} s"
            raise Problem(408, "timeout", what, {"Connection": "close"}) from error

    def count(self, scope: Message, status: int) -> None:
        """Count a response under the path of its route; unknown paths share one label."""
        route = getattr(scope.get("route"), "path", "other")
        self.metrics.requests.labels(scope["method"] if route != "other" else "any", route, status).inc()


class Rates:
    """Limits what each user or address does: a bucket of `burst` that fills again at `per_minute`."""

    def __init__(self, per_minute: int, what: str) -> None:
        self.per_second, self.burst, self.what = per_minute / 60, float(max(1, per_minute // 6)), what
        self.buckets: dict[str, tuple[float, float]] = {}  # the time of the last one and what was left then

    def check(self, name: str) -> float:
        """Return what is left; raises a `Problem` with the time to wait where nothing is."""
        now = monotonic()
        then, left = self.buckets.get(name, (now, self.burst))
        left = min(self.burst, left + (now - then) * self.per_second)
        if left < 1:
            raise busy(self.what, seconds=int((1 - left) / self.per_second) + 1)
        return left

    def take(self, name: str) -> None:
        """Count one; raises a `Problem` where nothing is left."""
        left = self.check(name)
        if len(self.buckets) >= NAMES:
            self.buckets.clear()
        self.buckets[name] = (monotonic(), left - 1)
