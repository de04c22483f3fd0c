"""A reward from a server: one POST for a batch of completions, answered with one score each.

The request is {"prompts": [[turn, …], …], "completions": [text, …]}, the answer {"scores": [number, …]}. Timeouts,
failed connections, 408, 429 and 5xx are retried with a doubled wait each time. An answer of the wrong form is not
retried, since it would be wrong again.
"""

import json
import os
import time
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from alignlab.chat import Turn
from alignlab.config.reward import UrlReward
from alignlab.errors import failure
from alignlab.rewards.protocol import Context, Scored, is_number
from alignlab.runtime.signals import RESUME

BUSY = {408, 429}  # retried, as every 5xx is


class Server(NamedTuple):
    """A server that scores."""

    name: str
    settings: UrlReward

    def score(self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]) -> Scored:
        """Ask for scores, a request for each `batch_size` completions; `finished` is not sent."""
        step = self.settings.batch_size
        total: list[float] = []
        for start in range(0, len(completions), step):
            part = slice(start, start + step)
            total += self.ask([list(turns) for turns in prompts[part]], list(completions[part]))
        return Scored(total)

    def ask(self, prompts: list[list[Turn]], completions: list[str]) -> list[float]:
        """Ask for the scores of one batch, with retries."""
        body = json.dumps({"prompts": prompts, "completions": completions}).encode()
        problem = ""
        for attempt in range(self.settings.retries + 1):
            if attempt:
                time.sleep(self.settings.backoff * 2 ** (attempt - 1))
            try:
                return self.read(self.post(body), len(completions))
            except HTTPError as error:
                problem = f"answers {error.code} {error.reason}"
                error.close()
                if error.code not in BUSY and error.code < 500:
                    raise self.failed(problem, "see what the server expects") from None
            except TimeoutError:
                problem = f"gives no answer within {self.settings.timeout:g} s"
            except (URLError, HTTPException, OSError) as error:
                problem = unreachable(error, self.settings.timeout)
        tries = self.settings.retries + 1
        raise self.failed(
            f"{problem} (tried {tries} {'time' if tries == 1 else 'times'})",
            f"start the server or raise reward.timeout, then {RESUME}",
        )

    def post(self, body: bytes) -> bytes:
        """Send one request and return the body of the answer; raises `TimeoutError` where both take too long."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.settings.key_env:
            headers["Authorization"] = f"Bearer {os.environ.get(self.settings.key_env, '')}"
        until = time.monotonic() + self.settings.timeout
        pieces: list[bytes] = []
        with urlopen(Request(self.settings.url, body, headers), timeout=self.settings.timeout) as answer:
            while piece := answer.read1():
                pieces.append(piece)
                if time.monotonic() > until:
                    raise TimeoutError
        return b"".join(pieces)

    def read(self, answer: bytes, count: int) -> list[float]:
        """Return the scores in an answer; raises a `Failure` unless there is one a completion."""
        try:
            body: Any = json.loads(answer)
        except ValueError:
            raise self.failed(f"answers with no JSON: {text(answer)}", EXPECTED) from None
        scores = body.get("scores") if isinstance(body, dict) else None
        if not isinstance(scores, list):
            raise self.failed(f"answers without a list of scores: {text(answer)}", EXPECTED)
        if len(scores) != count:
            raise self.failed(f"gives {len(scores)} scores for {count} completions", EXPECTED)
        if wrong := [value for value in scores if isinstance(value, bool) or not is_number(value)]:
            raise self.failed(f"gives a score that is no finite number: {wrong[0]!r}", EXPECTED)
        return [float(value) for value in scores]

    def failed(self, what: str, now: str) -> Exception:
        """Build the failure that stops the run."""
        return failure(f"reward {self.name}", f"{self.settings.url} {what}", now)


def load(settings: UrlReward, context: Context) -> Server:
    """Return the reward; the server is first asked when it scores."""
    return Server(context.name(settings.kind), settings)


EXPECTED = 'it has to answer {"scores": [number, …]}, one a completion, in their order'


def unreachable(error: Exception, timeout: float) -> str:
    """Return why a server could not be reached, in words."""
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, TimeoutError):
        return f"gives no answer within {timeout:g} s"
    return f"cannot be reached ({getattr(reason, 'strerror', None) or type(reason).__name__})"


def text(answer: bytes) -> str:
    """Return the beginning of an answer, for a message."""
    return repr(answer[:120].decode("utf-8", "replace"))
