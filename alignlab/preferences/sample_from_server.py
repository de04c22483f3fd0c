"""Several answers to each prompt by a model behind a server that speaks OpenAI's protocol, such as vLLM's.

Nothing is trained here, so text is all that is needed: prompts go out as turns, several at a time, and the server draws
all answers to one at once. Each prompt names a seed, which a server may heed or not. What is answered is on the disk;
where the server gives up, the same command goes on with the prompts that are left.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from random import Random

from alignlab.config.preferences import Preferences
from alignlab.errors import failure
from alignlab.models.chat_client import Asker, Choice, Unanswered
from alignlab.models.sampling import Completion
from alignlab.preferences.sample_answers import Prompt, answered
from alignlab.runtime.journal import Journal


def fetch_answers(asked: Sequence[Prompt], settings: Preferences, seed: int, journal: Journal) -> None:
    """Have every prompt answered that the journal does not hold yet; raises a `Failure` where the server does not."""
    from alignlab.runtime.progress import progress

    asker = Asker(settings.server, "preferences.server")
    left = [prompt for prompt in asked if prompt.id not in journal.rows]
    several = ThreadPoolExecutor(settings.server.concurrency)
    with progress(len(asked), "sampling", "prompts") as advance, several as pool:
        advance(len(asked) - len(left))
        running = {pool.submit(draw, asker, prompt, settings, seed): prompt for prompt in left}
        try:
            for done in as_completed(running):
                keep(journal, running[done], done.result())
                advance(1)
        finally:
            asker.stop.set()  # no further tries; what is under way may still come in
            pool.shutdown(cancel_futures=True)
            for done, prompt in running.items():
                if not done.cancelled() and done.exception() is None:
                    keep(journal, prompt, done.result())


def keep(journal: Journal, prompt: Prompt, drawn: Sequence[Choice]) -> None:
    """Write a prompt's answers down."""
    journal.add([answered(prompt, [Completion(one.text, one.finished, ()) for one in drawn])])


def draw(asker: Asker, prompt: Prompt, settings: Preferences, seed: int) -> list[Choice]:
    """The answers to one prompt; a server that gives one a request is asked again for those that are missing."""
    found: list[Choice] = []
    while len(found) < settings.samples:
        wanted = {
            "n": settings.samples - len(found),
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_new_tokens,
            "seed": Random(f"{seed} {prompt.id} {len(found)}").getrandbits(31),  # two runs' prompts share none
        }
        try:
            found += asker.draw(prompt.turns, wanted)
        except Unanswered as error:
            what = f"{settings.server.url} gives no answer to prompt {prompt.id}: {error}"
            remedy = "what was answered is kept: mend it, and the same command goes on from there"
            raise failure("preferences.server", what, remedy) from None
    return found[: settings.samples]
