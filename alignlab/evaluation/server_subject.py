"""A model behind a server that speaks OpenAI's protocol, as a subject: it completes prompts and scores no choices.

Its weights cannot be seen. Its replies are kept under the server's address and the model's name, until
`make clean-cache` removes them.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cached_property

from alignlab.config.judge import Host
from alignlab.errors import failure
from alignlab.evaluation.replies import ChoiceScore, Item, random_stream
from alignlab.models.chat_client import ChatClient, Choice, NoAnswer
from alignlab.models.sampling import Completion, Sampling
from alignlab.runtime.files import digest
from alignlab.runtime.progress import progress

SETTING = "task.server"


class ServerModel:
    """A chat model behind a server."""

    scores_choices = False

    def __init__(self, settings: Host, setting: str = SETTING) -> None:
        self.settings, self.setting = settings, setting

    @cached_property
    def fingerprint(self) -> str:
        """Return the hash of the server's address and the model's name."""
        return digest("server", self.settings.url, self.settings.model)

    def sample(
        self, items: Sequence[Item], draws: Sequence[Sequence[int]], sampling: Sampling, seed: int
    ) -> Iterator[dict[int, list[Completion]]]:
        """Yield item by item, as they arrive, its completions of the numbers in `draws`."""
        client = ChatClient(self.settings, self.setting)
        pool = ThreadPoolExecutor(self.settings.concurrency)
        with progress(len(items), "sampling", "prompts") as advance, pool:
            running = {
                pool.submit(self.draw, client, item, numbers, sampling, seed): place
                for place, (item, numbers) in enumerate(zip(items, draws, strict=True))
            }
            try:
                for future in as_completed(running):
                    yield {running[future]: future.result()}
                    advance(1)
            finally:
                client.stop.set()  # no more retries
                pool.shutdown(cancel_futures=True)

    def draw(
        self, client: ChatClient, item: Item, numbers: Sequence[int], sampling: Sampling, seed: int
    ) -> list[Completion]:
        """Return the completions of one item; each names a seed of its own, which a server may ignore."""
        completions = []
        for number in numbers:
            options = {
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "max_tokens": sampling.max_new_tokens,
                "seed": (random_stream(item, number) + seed) % 2**31,
            }
            completions.append(to_completion(self.ask(client, item, options)))
        return completions

    def ask(self, client: ChatClient, item: Item, options: dict[str, float]) -> Choice:
        """Return one answer; raise a `Failure` where the server gives none."""
        try:
            return client.sample(item.turns, options)[0]
        except NoAnswer as error:
            what = f"{self.settings.url} gives no answer to item {item.id}: {error}"
            remedy = "what was answered is kept: mend it, and the same command resumes"
            raise failure(self.setting, what, remedy) from None

    def score(self, items: Sequence[Item]) -> Iterator[dict[int, list[ChoiceScore]]]:
        """Raise a `TypeError`: the protocol has no log-probabilities of given texts."""
        raise TypeError("a server scores no choices")

    def release(self) -> None:
        """Do nothing: the model is not here."""


def to_completion(choice: Choice) -> Completion:
    """Return an answer as a completion; the server does not say its tokens."""
    return Completion(choice.text.strip(), choice.finished, ())
