"""A reward from a server: one POST for a batch of completions, answered with one score each.

The request is {"prompts": [[turn, …], …], "completions": [text, …]}, the answer {"scores": [number, …]}. An
answer of the wrong form is not retried, since it would be wrong again.
"""

from collections.abc import Sequence
from typing import NamedTuple

from alignlab.chat import Turn
from alignlab.config.reward import UrlReward
from alignlab.errors import Failure, failure
from alignlab.rewards.protocol import Context, Scored, is_number
from alignlab.runtime.http_client import Answer, HTTPClient, Unanswered
from alignlab.runtime.signals import RESUME


class Server(NamedTuple):
    """A server that scores."""

    name: str
    settings: UrlReward
    client: HTTPClient

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
        try:
            answer = self.client.send("POST", self.settings.url, {"prompts": prompts, "completions": completions})
        except Unanswered as error:
            raise self.failed(str(error), f"start the server or raise reward.timeout, then {RESUME}") from None
        if answer.status >= 300:
            now = "give the address itself" if answer.is_redirect else "see what the server expects"
            raise self.failed(f"answers {answer.status}: {answer.excerpt()}", now)
        return self.read(answer, len(completions))

    def read(self, answer: Answer, count: int) -> list[float]:
        """Return the scores in an answer; raises a `Failure` unless there is one per completion."""
        try:
            body = answer.json()
        except ValueError:
            raise self.failed(f"answers with no JSON: {answer.excerpt()}", EXPECTED) from None
        scores = body.get("scores") if isinstance(body, dict) else None
        if not isinstance(scores, list):
            raise self.failed(f"answers without a list of scores: {answer.excerpt()}", EXPECTED)
        if len(scores) != count:
            raise self.failed(f"gives {len(scores)} scores for {count} completions", EXPECTED)
        if wrong := [value for value in scores if isinstance(value, bool) or not is_number(value)]:
            raise self.failed(f"gives a score that is no finite number: {repr(wrong[0])[:60]}", EXPECTED)
        return [float(value) for value in scores]

    def failed(self, what: str, now: str) -> Failure:
        """Build the failure that stops the run."""
        return failure(f"reward {self.name}", f"{self.settings.url} {what}", now)


def load(settings: UrlReward, context: Context) -> Server:
    """Return the reward; the server is first asked when it scores."""
    return Server(context.name(settings.kind), settings, HTTPClient(settings))


def check(settings: UrlReward, context: Context) -> None:
    """Ask the server for one score; raises a `Failure` where it gives none."""
    quick = settings.model_copy(update={"retries": min(1, settings.retries)})
    load(quick, context).score([[{"role": "user", "content": "Hello."}]], ["Hello."], [True])


EXPECTED = 'it has to answer {"scores": [number, …]}, one a completion, in their order'
