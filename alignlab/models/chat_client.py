"""Ask a chat model behind a server that speaks OpenAI's protocol, and take only an answer that makes sense.

The answer is asked for as JSON of a given schema; a server that knows no schemas is asked for JSON, and one that knows
neither is told in words. What may pass (429, 5xx, silence, broken JSON, an answer that makes no sense) is tried again:
after the time that the server names, else after twice as long each time; a model that talked nonsense is told what was
wrong. What will not pass by itself (a wrong key, an unknown model) stops the run. Every further try is counted.
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

Told = TypeVar("Told")
Tried = TypeVar("Tried")
PASSING = {408, 409, 425, 429}  # besides every 5xx: worth another try
FORMATS = ("json_schema", "json_object", "text")
UNKNOWN_FORMAT = {400, 415, 422, 501}  # how servers say that they do not know what was asked for


class Nonsense(Exception):
    """An answer that is not what was asked for, and why."""


class Used(NamedTuple):
    """What asking took: tokens that the model read and wrote, and further tries by their reasons."""

    read: int
    written: int
    again: Counter[str]


class Unanswered(Exception):
    """No answer that makes sense, after all tries; and what they took."""

    def __init__(self, why: str, used: Used) -> None:
        super().__init__(why)
        self.used = used


class Trouble(NamedTuple):
    """Why a try came to nothing: in a word to count by, in a sentence, and for how long the server wants peace."""

    kind: str
    why: str
    wait: float | None = None


class Asked(NamedTuple, Generic[Told]):
    """What a model said, and what it took."""

    told: Told
    used: Used


class Said(NamedTuple):
    """One answer of a server: the model's text and the tokens that were counted."""

    text: str
    read: int
    written: int


class Choice(NamedTuple):
    """One of the answers to a conversation, and whether it came to its end."""

    text: str
    finished: bool


class Asker:
    """A server, asked by several threads at once; `stop` ends all waiting."""

    def __init__(self, settings: Host, place: str) -> None:
        import httpx

        self.settings, self.place = settings, place
        self.client = httpx.Client(timeout=settings.timeout, limits=httpx.Limits(max_connections=settings.concurrency))
        self.format = FORMATS.index(settings.format) if isinstance(settings, Server) else 0
        self.stop = Event()

    def ask(self, turns: Sequence[Turn], schema: Mapping[str, Any], read: Callable[[Any], Told]) -> Asked[Told]:
        """Ask until `read` makes sense of the answer; it raises `Nonsense` where it cannot.

        Raises `Unanswered` after the last try, and a `Failure` where trying again would not help.
        """
        talk, used = list(turns), Used(0, 0, Counter())

        def once() -> Told | Trouble:
            nonlocal talk, used
            said = self.say(talk, schema)
            if isinstance(said, Trouble):
                return said
            used = Used(used.read + said.read, used.written + said.written, used.again)
            try:
                return read(parsed(said.text))
            except Nonsense as error:
                talk = [*turns, *corrected(said.text, str(error))]
                return Trouble("nonsense", f"the model makes no sense: {error}")

        told = self.patiently(once, used.again)
        if isinstance(told, Unanswered):
            raise Unanswered(str(told), used)
        return Asked(told, used)

    def draw(self, turns: Sequence[Turn], wanted: Mapping[str, Any]) -> list[Choice]:
        """The plain answers to a conversation, as many as `wanted` says; raises as `ask` does."""

        def once() -> list[Choice] | Trouble:
            got = self.exchange({"messages": list(turns), **wanted})
            return got if isinstance(got, Trouble) else self.choices(*got)

        drawn = self.patiently(once, Counter())
        if isinstance(drawn, Unanswered):
            raise drawn
        return drawn

    def patiently(self, once: Callable[[], Tried | Trouble], again: Counter[str]) -> Tried | Unanswered:
        """Try until there is no trouble, or say what there was at last; `again` counts what went wrong."""
        attempt = 0
        while True:
            got = once()
            if not isinstance(got, Trouble):
                return got
            again[got.kind] += 1
            if attempt == self.settings.retries or self.stop.wait(self.pause(got, attempt)):
                tries = again.total()
                why = f"{got.why} (tried {tries} {'time' if tries == 1 else 'times'})"
                return Unanswered(why, Used(0, 0, again))
            attempt += 1

    def pause(self, trouble: Trouble, attempt: int) -> float:
        """Seconds before the next try: what the server wants, else twice as long each time, but never too long."""
        wanted = self.settings.backoff * 2**attempt if trouble.wait is None else trouble.wait
        return min(wanted, self.settings.longest_wait)

    def say(self, talk: list[Turn], schema: Mapping[str, Any]) -> Said | Trouble:
        """Make one request; a server that does not know the format is asked again in a plainer one."""
        assert isinstance(self.settings, Server)
        wanted = {"temperature": self.settings.temperature, "max_tokens": self.settings.max_tokens}
        while True:
            now = self.format
            got = self.exchange({"messages": talk, **wanted, **response_format(FORMATS[now], schema)})
            if isinstance(got, Trouble):
                return got
            if got[0] in UNKNOWN_FORMAT and now < len(FORMATS) - 1:
                self.format = max(self.format, now + 1)
                continue
            return self.heard(*got)

    def exchange(self, body: Mapping[str, Any]) -> tuple[int, bytes] | Trouble:
        """Make one request: the status and the body of an answer, or what may pass."""
        import httpx

        try:
            status, headers, answer = self.post(body)
        except httpx.TimeoutException:
            return Trouble("timeout", f"no answer within {self.settings.timeout:g} s")
        except httpx.HTTPError as error:
            return Trouble("unreachable", f"the server cannot be reached ({type(error).__name__})")
        if status in PASSING or (status >= 500 and status not in UNKNOWN_FORMAT):
            return Trouble(str(status), f"the server answers {status}", seconds(headers.get("retry-after")))
        return status, answer

    def post(self, wanted: Mapping[str, Any]) -> "tuple[int, httpx.Headers, bytes]":
        """Send a request and read the answer to its end, all of it within the timeout."""
        import httpx

        settings = self.settings
        key = os.environ.get(settings.key_env, "") if settings.key_env else ""
        body = {"model": settings.model, **wanted}
        until, pieces = monotonic() + settings.timeout, []
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        address = f"{settings.url.rstrip('/')}/chat/completions"
        with self.client.stream("POST", address, json=body, headers=headers) as answer:
            for piece in answer.iter_bytes():
                pieces.append(piece)
                if monotonic() > until:
                    raise httpx.ReadTimeout("dawdles")
            return answer.status_code, answer.headers, b"".join(pieces)

    def heard(self, status: int, body: bytes) -> Said | Trouble:
        """What one answer holds; raises a `Failure` for one that will not get better."""
        choices = self.choices(status, body)
        if isinstance(choices, Trouble):
            return choices
        try:
            used = json.loads(body).get("usage") or {}
            return Said(choices[0].text, *(int(used.get(f"{which}_tokens") or 0) for which in ("prompt", "completion")))
        except (ValueError, TypeError, AttributeError):
            return broken(body)

    def choices(self, status: int, body: bytes) -> list[Choice] | Trouble:
        """The texts in an answer; raises a `Failure` for one that will not get better."""
        if status >= 500:
            return Trouble(str(status), f"the server answers {status}")
        if status >= 400:
            raise self.failed(status, body)
        try:
            found = json.loads(body)["choices"]
            said = [Choice(str(one["message"]["content"] or ""), one.get("finish_reason") != "length") for one in found]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            said = []
        return said or broken(body)

    def failed(self, status: int, body: bytes) -> Failure:
        """Make the failure that stops the run."""
        remedy = {
            401: "set the key's environment variable (key_env)",
            403: "see what the key may do",
            404: "see url (it ends in /v1 with most servers) and model",
        }.get(status, "see what the server expects")
        what = f"{self.settings.url} answers {status} for the model {self.settings.model}: {shown(body)}"
        return failure(self.place, what, remedy)


def response_format(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a request that says what form the answer shall have."""
    match name:
        case "json_schema":
            wanted = {"name": "answer", "strict": True, "schema": schema}
            return {"response_format": {"type": "json_schema", "json_schema": wanted}}
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case _:
            return {}


def parsed(text: str) -> Any:
    """The JSON object in a text; around it there may be words or a fence."""
    why = "it holds no JSON object"
    for brace in re.finditer("{", text):
        try:
            return json.JSONDecoder().raw_decode(text, brace.start())[0]
        except ValueError as error:
            why = f"its JSON is broken ({error})"
    raise Nonsense(why)


def corrected(text: str, why: str) -> list[Turn]:
    """The turns that tell a model what was wrong with its answer."""
    return [
        {"role": "assistant", "content": text},
        {"role": "user", "content": f"That cannot be used: {why}. Answer again, with one JSON object as asked for."},
    ]


def seconds(given: str | None) -> float | None:
    """How long to wait by a Retry-After header: seconds, or a date."""
    if not given:
        return None
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(given)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def broken(body: bytes) -> Trouble:
    """The trouble of an answer that is not what the protocol says."""
    return Trouble("broken answer", f"the server's answer is broken: {shown(body)}")


def shown(body: bytes) -> str:
    """The beginning of an answer, for a message."""
    return repr(" ".join(body.decode("utf-8", "replace").split())[:120])
