"""A client of chat models behind a server that speaks OpenAI's protocol; it accepts only usable answers.

An answer is requested as JSON of a schema. A server that does not know schemas is asked for JSON, and one that knows
neither gets the format in the request's text. Failures that may pass (429, 5xx, timeouts, broken JSON, an unusable
answer) are retried: after the time that the server names, else with exponential backoff. A model whose answer was
unusable is told why. Failures that do not pass (a wrong key, an unknown model) stop the run. Retries are counted.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from alignlab.chat import Turn
from alignlab.config.judge import Host, Server
from alignlab.errors import Failure, failure

if TYPE_CHECKING:
    import httpx

Value = TypeVar("Value")
Result = TypeVar("Result")
TRANSIENT = {408, 409, 425, 429}  # statuses that are retried, besides every 5xx
FORMATS = ("json_schema", "json_object", "text")
UNKNOWN_FORMAT = {400, 415, 422, 501}  # statuses of servers that do not know a requested format


class UnusableAnswer(Exception):
    """An answer that is not what was asked for, with the reason."""


class Usage(NamedTuple):
    """The cost of a question: tokens that the model read and wrote, and retries by their reason."""

    read: int
    written: int
    retries: Counter[str]


class NoAnswer(Exception):
    """No usable answer after all retries, with the reason and their cost."""

    def __init__(self, why: str, usage: Usage) -> None:
        super().__init__(why)
        self.usage = usage


class Retry(NamedTuple):
    """Why a request is retried: a word to count by, a sentence, and the seconds that the server wants to wait."""

    kind: str
    why: str
    wait: float | None = None


class Answered(NamedTuple, Generic[Value]):
    """The value of a usable answer, and its cost."""

    value: Value
    usage: Usage


class Reply(NamedTuple):
    """One reply of a server: the model's text, and the tokens that it read and wrote."""

    text: str
    read: int
    written: int


class Choice(NamedTuple):
    """One of the completions of a conversation, and whether it ended by itself."""

    text: str
    finished: bool


class ChatClient:
    """A client of one server, used by several threads at once; `stop` ends all waiting."""

    def __init__(self, settings: Host, place: str) -> None:
        import httpx

        self.settings, self.place = settings, place
        self.client = httpx.Client(timeout=settings.timeout, limits=httpx.Limits(max_connections=settings.concurrency))
        self.format = FORMATS.index(settings.format) if isinstance(settings, Server) else 0  # known to the server
        self.stop = Event()

    def ask(self, turns: Sequence[Turn], schema: Mapping[str, Any], read: Callable[[Any], Value]) -> Answered[Value]:
        """Ask until `read` accepts the JSON of an answer; it raises `UnusableAnswer` for one that it does not.

        Raises `NoAnswer` after the last retry, and a `Failure` where a retry would not help.
        """
        messages, usage = list(turns), Usage(0, 0, Counter())

        def attempt() -> Value | Retry:
            nonlocal messages, usage
            reply = self.request_json(messages, schema)
            if isinstance(reply, Retry):
                return reply
            usage = Usage(usage.read + reply.read, usage.written + reply.written, usage.retries)
            try:
                return read(parse_json(reply.text))
            except UnusableAnswer as error:
                messages = [*turns, *correction(reply.text, str(error))]
                return Retry("nonsense", f"the model's answer cannot be used: {error}")

        value = self.with_retries(attempt, usage.retries)
        if isinstance(value, NoAnswer):
            raise NoAnswer(str(value), usage)
        return Answered(value, usage)

    def sample(self, turns: Sequence[Turn], options: Mapping[str, Any]) -> list[Choice]:
        """Return completions of a conversation as text; `options` go into the request. Raises as `ask` does."""

        def attempt() -> list[Choice] | Retry:
            response = self.request({"messages": list(turns), **options})
            return response if isinstance(response, Retry) else self.read_choices(*response)

        choices = self.with_retries(attempt, Counter())
        if isinstance(choices, NoAnswer):
            raise choices
        return choices

    def with_retries(self, attempt: Callable[[], Result | Retry], retries: Counter[str]) -> Result | NoAnswer:
        """Attempt until there is a result, or return the last reason; `retries` counts the reasons."""
        number = 0
        while True:
            result = attempt()
            if not isinstance(result, Retry):
                return result
            retries[result.kind] += 1
            if number == self.settings.retries or self.stop.wait(self.delay(result, number)):
                tries = retries.total()
                why = f"{result.why} (tried {tries} {'time' if tries == 1 else 'times'})"
                return NoAnswer(why, Usage(0, 0, retries))
            number += 1

    def delay(self, retry: Retry, number: int) -> float:
        """Return the seconds before a retry: what the server wants, else exponential backoff, up to a maximum."""
        seconds = self.settings.backoff * 2**number if retry.wait is None else retry.wait
        return min(seconds, self.settings.longest_wait)

    def request_json(self, messages: list[Turn], schema: Mapping[str, Any]) -> Reply | Retry:
        """Request JSON; where the server does not know the format, request a simpler one."""
        assert isinstance(self.settings, Server)
        options = {"temperature": self.settings.temperature, "max_tokens": self.settings.max_tokens}
        while True:
            tried = self.format
            response = self.request({"messages": messages, **options, **response_format(FORMATS[tried], schema)})
            if isinstance(response, Retry):
                return response
            if response[0] in UNKNOWN_FORMAT and tried < len(FORMATS) - 1:
                self.format = max(self.format, tried + 1)
                continue
            return self.read_reply(*response)

    def request(self, body: Mapping[str, Any]) -> tuple[int, bytes] | Retry:
        """Send a request; return the status and the body of the response, or the reason to retry."""
        import httpx

        try:
            status, headers, content = self.post(body)
        except httpx.TimeoutException:
            return Retry("timeout", f"no answer within {self.settings.timeout:g} s")
        except httpx.HTTPError as error:
            return Retry("unreachable", f"the server cannot be reached ({type(error).__name__})")
        if status in TRANSIENT or (status >= 500 and status not in UNKNOWN_FORMAT):
            return Retry(str(status), f"the server answers {status}", retry_after(headers.get("retry-after")))
        return status, content

    def post(self, body: Mapping[str, Any]) -> "tuple[int, httpx.Headers, bytes]":
        """Post a request and read the whole response within the timeout."""
        import httpx

        settings = self.settings
        key = os.environ.get(settings.key_env, "") if settings.key_env else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = f"{settings.url.rstrip('/')}/chat/completions"
        deadline, chunks = monotonic() + settings.timeout, []
        with self.client.stream("POST", url, json={"model": settings.model, **body}, headers=headers) as response:
            for chunk in response.iter_bytes():
                chunks.append(chunk)
                if monotonic() > deadline:
                    raise httpx.ReadTimeout("the response is not complete in time")
            return response.status_code, response.headers, b"".join(chunks)

    def read_reply(self, status: int, body: bytes) -> Reply | Retry:
        """Read the text and the token counts of a response; raises a `Failure` for an error that is not retried."""
        choices = self.read_choices(status, body)
        if isinstance(choices, Retry):
            return choices
        try:
            counts = json.loads(body).get("usage") or {}
            tokens = (int(counts.get(f"{kind}_tokens") or 0) for kind in ("prompt", "completion"))
            return Reply(choices[0].text, *tokens)
        except (ValueError, TypeError, AttributeError):
            return broken_answer(body)

    def read_choices(self, status: int, body: bytes) -> list[Choice] | Retry:
        """Read the texts of a response; raises a `Failure` for an error that is not retried."""
        if status >= 500:
            return Retry(str(status), f"the server answers {status}")
        if status >= 400:
            raise self.failure(status, body)
        try:
            choices = [
                Choice(str(choice["message"]["content"] or ""), choice.get("finish_reason") != "length")
                for choice in json.loads(body)["choices"]
            ]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            choices = []
        return choices or broken_answer(body)

    def failure(self, status: int, body: bytes) -> Failure:
        """Build the failure that stops the run."""
        remedy = {
            401: "set the key's environment variable (key_env)",
            403: "check what the key may do",
            404: "check url (it ends in /v1 with most servers) and model",
        }.get(status, "check what the server expects")
        what = f"{self.settings.url} answers {status} for the model {self.settings.model}: {excerpt(body)}"
        return failure(self.place, what, remedy)


def response_format(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a request that sets the format of the answer."""
    match name:
        case "json_schema":
            answer = {"name": "answer", "strict": True, "schema": schema}
            return {"response_format": {"type": "json_schema", "json_schema": answer}}
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case _:
            return {}


def parse_json(text: str) -> Any:
    """Return the first JSON object in a text; raises `UnusableAnswer` where there is none."""
    why = "it holds no JSON object"
    for brace in re.finditer("{", text):
        try:
            return json.JSONDecoder().raw_decode(text, brace.start())[0]
        except ValueError as error:
            why = f"its JSON is broken ({error})"
    raise UnusableAnswer(why)


def correction(text: str, why: str) -> list[Turn]:
    """Return the turns that tell a model why its answer is unusable."""
    return [
        {"role": "assistant", "content": text},
        {"role": "user", "content": f"That cannot be used: {why}. Answer again, with one JSON object as asked for."},
    ]


def retry_after(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header, a number or a date; None where there is none."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def broken_answer(body: bytes) -> Retry:
    """Return the reason to retry after a response that does not follow the protocol."""
    return Retry("broken answer", f"the server's answer is broken: {excerpt(body)}")


def excerpt(body: bytes) -> str:
    """Return the beginning of a response, for a message."""
    return repr(" ".join(body.decode("utf-8", "replace").split())[:120])
