"""A client of chat models behind a server that speaks OpenAI's protocol; it accepts only usable answers.

An answer is requested as JSON of a schema. A server that does not know schemas is asked for JSON, and one that knows
neither gets the format in the request's text. Failures that may pass (429, 5xx, timeouts, broken JSON, an unusable
answer) are retried: after the time that the server names, else with exponential backoff. A model whose answer was
unusable is told why. Failures that do not pass (a wrong key, an unknown model) stop the run. Retries are counted.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, NamedTuple, TypeVar

from alignlab.chat import Turn
from alignlab.config.judge import Host, Server
from alignlab.errors import Failure, failure
from alignlab.runtime.http_client import Answer, HTTPClient, Unanswered, check_values

Value = TypeVar("Value")
Result = TypeVar("Result")
FORMATS = ("json_schema", "json_object", "text")
UNKNOWN_FORMAT = {400, 415, 422, 501}  # statuses of servers that do not know a requested format
OBJECT = re.compile(r'\{(?=\s*["}])')  # where a JSON object may begin
MOST_OBJECTS = 1000  # places at which an object is looked for in an answer
LONGEST_QUOTE = 20_000  # characters of an unusable answer that the model is shown again
MOST_TOKENS = 10**9  # of one answer; a larger count is an error of the server


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
        self.settings, self.place = settings, place
        self.client = HTTPClient(settings, settings.concurrency)
        self.format = FORMATS.index(settings.format) if isinstance(settings, Server) else 0  # known to the server
        self.stop = self.client.stop

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
            answer = self.request({"messages": list(turns), **options})
            return answer if isinstance(answer, Retry) else self.read_choices(answer)

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
            answer = self.request({"messages": messages, **options, **response_format(FORMATS[tried], schema)})
            if isinstance(answer, Retry):
                return answer
            if answer.status in UNKNOWN_FORMAT and tried < len(FORMATS) - 1:
                self.format = max(self.format, tried + 1)
                continue
            return self.read_reply(answer)

    def request(self, body: Mapping[str, Any]) -> Answer | Retry:
        """Send a request; return the server's answer, or the reason to retry."""
        url = f"{self.settings.url.rstrip('/')}/chat/completions"
        try:
            answer = self.client.request("POST", url, {"model": self.settings.model, **body})
        except Unanswered as error:
            return Retry(error.kind, f"the server {error}")
        if answer.is_transient and answer.status not in UNKNOWN_FORMAT:
            kind = str(answer.status)
            return Retry(kind, f"the server answers {kind}", retry_after(answer.headers.get("retry-after")))
        return answer

    def read_reply(self, answer: Answer) -> Reply | Retry:
        """Read the text and the token counts of an answer; raises a `Failure` for an error that is not retried."""
        choices = self.read_choices(answer)
        if isinstance(choices, Retry):
            return choices
        try:
            used = answer.json().get("usage") or {}
            return Reply(
                choices[0].text, *(token_count(used.get(f"{kind}_tokens")) for kind in ("prompt", "completion"))
            )
        except (ValueError, AttributeError):
            return broken_answer(answer)

    def read_choices(self, answer: Answer) -> list[Choice] | Retry:
        """Read the texts of an answer; raises a `Failure` for an error that is not retried."""
        if answer.status >= 500:
            return Retry(str(answer.status), f"the server answers {answer.status}")
        if answer.status >= 300:
            raise self.failure(answer)
        try:
            choices = [
                Choice(message_text(choice["message"]), choice.get("finish_reason") != "length")
                for choice in answer.json()["choices"]
            ]
        except (ValueError, LookupError, TypeError, AttributeError):
            choices = []
        return choices or broken_answer(answer)

    def failure(self, answer: Answer) -> Failure:
        """Build the failure that stops the run."""
        remedy = {
            401: "set the key's environment variable (key_env)",
            403: "check what the key may do",
            404: "check url (it ends in /v1 with most servers) and model",
        }.get(answer.status, "redirects are not followed" if answer.is_redirect else "check what the server expects")
        what = f"{self.settings.url} answers {answer.status} for the model {self.settings.model}: {answer.excerpt()}"
        return failure(self.place, what, remedy)


def message_text(message: Mapping[str, Any]) -> str:
    """Return the text of a message; some servers send a refusal in a field of its own, without content."""
    return str(message["content"] or message.get("refusal") or "")


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
    """Return the first JSON object in a text; raises `UnusableAnswer` where there is none.

    After an object that is broken, the search continues where it breaks: the time is linear in the text.
    """
    why, position = "it holds no JSON object", 0
    for _ in range(MOST_OBJECTS):
        brace = OBJECT.search(text, position)
        if not brace:
            break
        try:
            value = json.JSONDecoder().raw_decode(text, brace.start())[0]
            check_values(value)
            return value
        except json.JSONDecodeError as error:
            why, position = f"its JSON is broken ({error})", max(error.pos, brace.end())
        except (RecursionError, ValueError) as error:
            raise UnusableAnswer(f"its JSON cannot be read ({str(error)[:80]})") from None
    raise UnusableAnswer(why)


def correction(text: str, why: str) -> list[Turn]:
    """Return the turns that tell a model why its answer is unusable."""
    return [
        {"role": "assistant", "content": text[:LONGEST_QUOTE]},
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
        zoned = until if until.tzinfo else until.replace(tzinfo=UTC)
        return max(0.0, (zoned - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, LookupError, OverflowError):
        return None


def token_count(value: Any) -> int:
    """Return a number of tokens, 0 where it is missing; raises a `ValueError` for what is no such number."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST_TOKENS:
        raise ValueError(f"{value!r} is no number of tokens")
    return int(value)


def broken_answer(answer: Answer) -> Retry:
    """Return the reason to retry after an answer that does not follow the protocol."""
    return Retry("broken answer", f"the server's answer is broken: {answer.excerpt()}")
