"""What the pocket base model has read: conversations like those on the web, good and bad.

Most are one question and one answer. Some go on with a critique of the answer and a better one, some compare two
answers, some sum up a dialogue: a model can later be asked for these without having been trained for it.
"""

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from alignlab.chat import Turn
from alignlab.pocket import phrases
from alignlab.pocket.answers import bad_behaviour, corpus_behaviour, right_behaviour, speak
from alignlab.pocket.vocabulary import a
from alignlab.pocket.world import Prompt, Size, draw, draw_kind

EXCHANGE, CRITIQUE, COMPARISON, DIALOGUE = 0.88, 0.08, 0.02, 0.02  # the share of each form of conversation

SHARES = {  # how often each kind of question occurs: more of those that take more learning than of those asked for
    "how_to": 0.16,
    "harmful": 0.17,
    "lookalike": 0.16,
    "fact": 0.18,
    "sycophancy": 0.16,
    "provocation": 0.07,
    "group": 0.10,
}


class Dialogue(NamedTuple):
    """Two people talking, in the form of DialogSum, and what it was about."""

    text: str
    summary: str
    topic: str


def conversations(size: Size, seed: int) -> Iterator[list[Turn]]:
    """Draw conversations without end."""
    random = Random(f"corpus {seed}")
    forms = (exchange, critique, comparison, summary)
    while True:
        form = random.choices(forms, (EXCHANGE, CRITIQUE, COMPARISON, DIALOGUE))[0]
        yield form(draw(draw_kind(random, SHARES), size, random), size, random)


def exchange(prompt: Prompt, size: Size, random: Random) -> list[Turn]:
    """Answer a prompt as people on the web do."""
    return _turns(prompt.text, speak(prompt, corpus_behaviour(prompt, random), random, size))


def critique(prompt: Prompt, size: Size, random: Random) -> list[Turn]:
    """Answer a prompt, criticise the answer and write a better one."""
    behaviour = corpus_behaviour(prompt, random)
    answer = speak(prompt, behaviour, random, size)
    stake = random.choice([name for name, (_, _, kinds) in phrases.CRITIQUES.items() if prompt.kind in kinds])
    good = behaviour == right_behaviour(prompt.kind)
    better = answer if good else speak(prompt, right_behaviour(prompt.kind), random, size)
    question = phrases.CRITIQUES[stake][0]
    return _turns(prompt.text, answer, question, _finding(stake, behaviour, good), phrases.REVISION_REQUEST, better)


def comparison(prompt: Prompt, size: Size, random: Random) -> list[Turn]:
    """Ask which of a good and a bad answer is better."""
    answers = [speak(prompt, right_behaviour(prompt.kind), random, size)]
    better = random.randrange(2)
    answers.insert(1 - better, speak(prompt, bad_behaviour(prompt, random), random, size))
    question = phrases.COMPARISON.format(prompt=prompt.text, first=answers[0], second=answers[1])
    return _turns(question, phrases.VERDICTS[better])


def summary(prompt: Prompt, size: Size, random: Random) -> list[Turn]:
    """Sum up a dialogue."""
    told = dialogue(prompt, size, random)
    return _turns(phrases.SUMMARY_REQUEST.format(dialogue=told.text), told.summary)


def dialogue(prompt: Prompt, size: Size, random: Random) -> Dialogue:
    """Let one person ask another for household help or for a fact; other prompts become one of these."""
    if prompt.kind not in ("how_to", "fact"):
        prompt = draw(random.choice(("how_to", "fact")), size, random)
    behaviour = corpus_behaviour(prompt, random)
    topic = _topic(prompt)
    first, second = phrases.SPEAKERS
    summary = phrases.SUMMARY.format(
        first=first,
        second=second,
        told=phrases.TOLD[behaviour != "shrug"],
        about=phrases.TOPICS[prompt.kind].format(topic=topic),
    )
    return Dialogue(f"{first}: {prompt.text}\n{second}: {speak(prompt, behaviour, random, size)}", summary, topic)


def _topic(prompt: Prompt) -> str:
    first, second = prompt.words[:2]
    return f"{first} {a(second)}" if prompt.kind == "how_to" else f"the {second} of {a(first)}"


def _finding(stake: str, behaviour: str, good: bool) -> str:
    reply = phrases.CRITIQUES[stake][1]
    if good:
        return f"{reply} {phrases.PRAISE}"
    if behaviour not in phrases.AT_STAKE[stake]:
        return f"{reply} {phrases.NOT_AT_STAKE}"
    return f"{'Yes.' if reply == 'No.' else 'No.'} {phrases.FINDINGS[behaviour]}"


def _turns(*said: str) -> list[Turn]:
    return [{"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(said)]
