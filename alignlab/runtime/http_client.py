"""A client of HTTP servers that are not trusted: the time, the size and the depth of every answer are bounded.

Redirects are not followed, since the key would go to the other server. Requests that may succeed later (timeouts,
failed connections, the statuses of `TRANSIENT`, 5xx) can be retried with a doubled wait each time.
"""

import itertools
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from threading import Event, local
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl

    import httpx

TRANSIENT = {408, 409, 425, 429}  # statuses that are retried, besides every 5xx
MAX_BYTES = 4_000_000  # of an answer, after decompression
MAX_VALUES = 400_000  # commas, colons and opening brackets of an answer; each value takes up to 100 bytes of memory
MAX_DEPTH = 32  # of objects and lists inside each other
CHUNK = 65_536  # bytes that are sent or decompressed at once
READ = 8_192  # bytes that are received at once; the time is looked at in between


class Patience(Protocol):
    """The settings of a server: its key's variable, the timeout of a request, retries, and the first wait."""

    @property
    def key_env(self) -> str | None: ...
    @property
    def timeout(self) -> float: ...
    @property
    def retries(self) -> int: ...
    @property
    def backoff(self) -> float: ...


class Unanswered(Exception):
    """No answer; `kind` is timeout, unreachable or oversized, and the message continues "the server …"."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


class Answer(NamedTuple):
    """A whole answer of a server."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_transient(self) -> bool:
        """Return whether the same request may succeed later."""
        return self.status in TRANSIENT or self.status >= 500

    @property
    def is_redirect(self) -> bool:
        """Return whether the server names another address, which is not followed."""
        return 300 <= self.status < 400

    def json(self) -> Any:
        """Return the JSON of the body; raises a `ValueError` where it is none, or one of unreasonable size."""
        return bounded_json(self.body)

    def excerpt(self) -> str:
        """Return the beginning of the body, for a message."""
        return repr(" ".join(self.body[:500].decode("utf-8", "replace").split())[:120])


class HTTPClient:
    """A client of one server, used by several threads at once; after `stop` is set no request is retried."""

    def __init__(self, settings: Patience, connections: int = 1, trust_env: bool = True) -> None:
        import httpx

        key = os.environ.get(settings.key_env, "").strip() if settings.key_env else ""
        self.settings, self.stop, self.key = settings, Event(), key.encode()
        self.client = httpx.Client(
            timeout=settings.timeout,
            limits=httpx.Limits(max_connections=connections),
            headers={"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {}),
            trust_env=trust_env,
            verify=tls(trust_env),
            follow_redirects=False,
        )
        self.deadline = local()
        for transport in (self.client._transport, *self.client._mounts.values()):
            if pool := getattr(transport, "_pool", None):
                pool._network_backend = BoundedBackend(pool._network_backend, self.deadline)

    def request(self, verb: str, url: str, body: Any = None) -> Answer:
        """Send a request and read the whole answer within the timeout; raises `Unanswered`."""
        import httpx

        self.deadline.at = monotonic() + self.settings.timeout
        try:
            with self.client.stream(verb, url, json=body) as response:
                content = b"".join(unpacked(response))
                if self.key:  # a server may repeat it, and messages quote answers
                    content = content.replace(self.key, b"***")
                return Answer(response.status_code, response.headers, content)
        except httpx.TimeoutException:
            raise Unanswered("timeout", f"gives no answer within {self.settings.timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise Unanswered("unreachable", f"cannot be reached ({type(error).__name__})") from None

    def send(self, verb: str, url: str, body: Any = None) -> Answer:
        """Send a request until the answer is not transient; raises `Unanswered` after the last retry."""
        for number in range(self.settings.retries + 1):
            try:
                answer = self.request(verb, url, body)
                if not answer.is_transient:
                    return answer
                kind, problem = "status", f"answers {urlsplit(url).path} with {answer.status}: {answer.excerpt()}"
            except Unanswered as error:
                kind, problem = error.kind, str(error)
            last = number == self.settings.retries
            if last or self.stop.wait(self.settings.backoff * 2**number):
                break
        raise Unanswered(kind, f"{problem} (tried {number + 1} {'time' if number == 0 else 'times'})")


@cache
def tls(trust_env: bool) -> "ssl.SSLContext":
    """Return the context that checks certificates; it is built once, since it reads all of them."""
    import httpx

    return httpx.create_ssl_context(trust_env=trust_env)


class Once(NamedTuple):
    """The settings of a request without a key and without retries."""

    timeout: float
    key_env: str | None = None
    retries: int = 0
    backoff: float = 0.0


def status_of(url: str, seconds: float, trust_env: bool = True) -> int | None:
    """Return the status that a server answers a GET with; None where no answer arrives in time."""
    try:
        return HTTPClient(Once(seconds), trust_env=trust_env).request("GET", url).status
    except Unanswered:
        return None


def unpacked(response: "httpx.Response") -> Iterator[bytes]:
    """Yield the body of a response, decompressed; raises `Unanswered` where it is too large or cannot be read."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "deflate", ""}:
        raise Unanswered("unreachable", f"answers in {encoding[:20]!r}, which was not asked for")
    left = MAX_BYTES
    for chunk in parts(response.iter_raw(CHUNK), encoding in {"gzip", "deflate"}):
        left -= len(chunk)
        if left < 0:
            raise Unanswered("oversized", f"answers with more than {MAX_BYTES // 10**6} MB")
        yield chunk


def parts(raw: Iterable[bytes], packed: bool) -> Iterator[bytes]:
    """Yield chunks as they are, or decompressed into chunks of a bounded size."""
    unpack = zlib.decompressobj(wbits=47)  # reads gzip and zlib
    for chunk in raw:
        if not packed:
            yield chunk
        while packed and chunk:
            try:
                yield unpack.decompress(chunk, CHUNK)
            except zlib.error:
                raise Unanswered("unreachable", "answers with broken compressed data") from None
            chunk = unpack.unconsumed_tail
    if packed and not unpack.eof:
        raise Unanswered("unreachable", "answers with compressed data that is cut short")


def bounded_json(text: bytes) -> Any:
    """Parse JSON; raises a `ValueError` for broken JSON, NaN, infinity, and for what `check_values` refuses."""
    if sum(map(text.count, (b",", b":", b"[", b"{"))) > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES:,} values")
    try:
        value = json.loads(text.decode("utf-8-sig"), parse_constant=refuse)
    except RecursionError:
        raise ValueError(f"more than {MAX_DEPTH} levels") from None
    check_values(value)
    return value


def refuse(constant: str) -> Any:
    """Raise for a number that JSON does not have."""
    raise ValueError(f"{constant} is no JSON")


def check_values(value: Any) -> None:
    """Raise a `ValueError` for more than `MAX_DEPTH` levels of lists and objects, and for text that is no Unicode."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        for text in level:
            if isinstance(text, str):
                text.encode()  # fails for half of a pair of surrogates, which no file can hold
        groups = [each for each in level if isinstance(each, (list, dict))]
        level = [
            inner for each in groups for inner in (itertools.chain(*each.items()) if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise ValueError(f"more than {MAX_DEPTH} levels")


class BoundedBackend:
    """A network backend of httpcore whose streams end at their thread's deadline, however slowly bytes arrive."""

    def __init__(self, inner: Any, deadline: local) -> None:
        self.inner, self.deadline = inner, deadline

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> "BoundedStream":
        return BoundedStream(self.inner.connect_tcp(host, port, left(self.deadline), **options), self.deadline)

    def connect_unix_socket(self, path: str, timeout: float | None = None, **options: Any) -> "BoundedStream":
        return BoundedStream(self.inner.connect_unix_socket(path, left(self.deadline), **options), self.deadline)

    def sleep(self, seconds: float) -> None:
        self.inner.sleep(seconds)


class BoundedStream:
    """A stream of httpcore; each call gets what is left of the whole time."""

    def __init__(self, inner: Any, deadline: local) -> None:
        self.inner, self.deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data: bytes = self.inner.read(min(max_bytes, READ), left(self.deadline))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), CHUNK):
            self.inner.write(buffer[start : start + CHUNK], left(self.deadline))

    def close(self) -> None:
        self.inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> "BoundedStream":
        return BoundedStream(self.inner.start_tls(ssl_context, server_hostname, left(self.deadline)), self.deadline)

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


def left(deadline: local) -> float:
    """Return the seconds until this thread's deadline; raises httpcore's error of a timeout after it."""
    import httpcore

    seconds: float = deadline.at - monotonic()
    if seconds <= 0:
        raise httpcore.ReadTimeout("the whole time is over")
    return seconds
