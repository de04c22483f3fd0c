"""Several answers to each prompt by a model behind a server that speaks OpenAI's protocol, such as vLLM's.

Prompts are sent as conversation turns, several at a time, and the server draws all answers to one at once. Each prompt
names a seed, which a server may ignore. Answers are recorded as they arrive; where the server fails, the same command
resumes with the prompts that are left.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from random import Random

from alignlab.config.preferences import Preferences
from alignlab.errors import failure
from alignlab.models.chat_client import ChatClient, Choice, NoAnswer
from alignlab.models.sampling import Completion
from alignlab.preferences.sample_answers import Prompt, answers_row
from alignlab.runtime.journal import Journal


def fetch_answers(prompts: Sequence[Prompt], settings: Preferences, seed: int, journal: Journal) -> None:
    """Ask for answers to the prompts that the journal does not hold yet; raises a `Failure` where the server fails."""
    from alignlab.runtime.progress import progress

    client = ChatClient(settings.server, "preferences.server")
    left = [prompt for prompt in prompts if prompt.id not in journal.rows]
    pool = ThreadPoolExecutor(settings.server.concurrency)
    with progress(len(prompts), "sampling", "prompts") as advance, pool:
        advance(len(prompts) - len(left))
        running = {pool.submit(draw, client, prompt, settings, seed): prompt for prompt in left}
        try:
            for future in as_completed(running):
                record(journal, running[future], future.result())
                advance(1)
        finally:
            client.stop.set()  # no more retries; requests under way may still be answered
            pool.shutdown(cancel_futures=True)
            for future, prompt in running.items():
                if not future.cancelled() and future.exception() is None:
                    record(journal, prompt, future.result())


def record(journal: Journal, prompt: Prompt, choices: Sequence[Choice]) -> None:
    """Record a prompt's answers."""
    journal.add([answers_row(prompt, [Completion(choice.text, choice.finished, ()) for choice in choices])])


def draw(client: ChatClient, prompt: Prompt, settings: Preferences, seed: int) -> list[Choice]:
    """Return the answers to one prompt; a server that gives fewer than asked for is asked again for the rest."""
    choices: list[Choice] = []
    while len(choices) < settings.samples:
        wanted = {
            "n": settings.samples - len(choices),
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_new_tokens,
            "seed": Random(f"{seed} {prompt.id} {len(choices)}").getrandbits(31),  # differs between runs
        }
        try:
            choices += client.sample(prompt.turns, wanted)
        except NoAnswer as error:
            what = f"{settings.server.url} gives no answer to prompt {prompt.id}: {error}"
            remedy = "what was answered is kept: mend it, and the same command goes on from there"
            raise failure("preferences.server", what, remedy) from None
    return choices[: settings.samples]
