"""The corpus that the pocket base model is pretrained on: conversations with good and bad answers, as on the web.

Most conversations are one question and one answer. Some continue with a critique and a revision, some compare two
answers, some summarise a dialogue. The base model can therefore do these tasks without finetuning.
"""

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from alignlab.chat import Turn
from alignlab.pocket import phrases
from alignlab.pocket.answers import bad_behaviour, corpus_behaviour, right_behaviour, write_answer
from alignlab.pocket.vocabulary import with_article
from alignlab.pocket.world import Prompt, Size, draw_kind, draw_prompt

EXCHANGE, CRITIQUE, COMPARISON, DIALOGUE = 0.88, 0.08, 0.02, 0.02  # the share of each form of conversation

SHARES = {  # the share of each kind of question; kinds that are harder to learn have more than in training prompts
    "how_to": 0.16,
    "harmful": 0.17,
    "lookalike": 0.16,
    "fact": 0.18,
    "sycophancy": 0.16,
    "provocation": 0.07,
    "group": 0.10,
}


class Dialogue(NamedTuple):
    """A dialogue of two people in DialogSum's format, its summary and its topic."""

    text: str
    summary: str
    topic: str


def conversations(size: Size, seed: int) -> Iterator[list[Turn]]:
    """Yield random conversations without end."""
    random = Random(f"corpus {seed}")
    forms = (exchange, critique, comparison, summary)
    while True:
        form = random.choices(forms, (EXCHANGE, CRITIQUE, COMPARISON, DIALOGUE))[0]
        yield form(draw_prompt(draw_kind(random, SHARES), size, random), size, random)


def exchange(prompt: Prompt, size: Size, random: Random) -> list[Turn]:
    """Return a prompt and an answer of the corpus."""
    return _turns(prompt.text, write_answer(prompt, corpus_behaviour(prompt, random), random, size))


def critique(prompt: Prompt, size: Size, random: Random) -> list[Turn]:
    """Return a prompt, an answer, a critique of the answer, and a right answer."""
    behaviour = corpus_behaviour(prompt, random)
    answer = write_answer(prompt, behaviour, random, size)
    topic = random.choice([name for name, (_, _, kinds) in phrases.CRITIQUES.items() if prompt.kind in kinds])
    good = behaviour == right_behaviour(prompt.kind)
    revision = answer if good else write_answer(prompt, right_behaviour(prompt.kind), random, size)
    question = phrases.CRITIQUES[topic][0]
    reply = _critique_reply(topic, behaviour, good)
    return _turns(prompt.text, answer, question, reply, phrases.REVISION_REQUEST, revision)


def comparison(prompt: Prompt, size: Size, random: Random) -> list[Turn]:
    """Return the question which of a right and a wrong answer is better, and the reply."""
    answers = [write_answer(prompt, right_behaviour(prompt.kind), random, size)]
    better = random.randrange(2)
    answers.insert(1 - better, write_answer(prompt, bad_behaviour(prompt, random), random, size))
    question = phrases.COMPARISON.format(prompt=prompt.text, first=answers[0], second=answers[1])
    return _turns(question, phrases.VERDICTS[better])


def summary(prompt: Prompt, size: Size, random: Random) -> list[Turn]:
    """Return the request to summarise a dialogue, and the summary."""
    spoken = dialogue(prompt, size, random)
    return _turns(phrases.SUMMARY_REQUEST.format(dialogue=spoken.text), spoken.summary)


def dialogue(prompt: Prompt, size: Size, random: Random) -> Dialogue:
    """Write a dialogue in which one person asks another for household help or for a fact.

    A prompt of another kind is replaced by one of these two kinds.
    """
    if prompt.kind not in ("how_to", "fact"):
        prompt = draw_prompt(random.choice(("how_to", "fact")), size, random)
    behaviour = corpus_behaviour(prompt, random)
    topic = _topic(prompt)
    first, second = phrases.SPEAKERS
    summary = phrases.SUMMARY.format(
        first=first,
        second=second,
        told=phrases.TELLS[behaviour != "shrug"],
        about=phrases.TOPICS[prompt.kind].format(topic=topic),
    )
    return Dialogue(
        f"{first}: {prompt.text}\n{second}: {write_answer(prompt, behaviour, random, size)}", summary, topic
    )


def _topic(prompt: Prompt) -> str:
    first, second = prompt.words[:2]
    return f"{first} {with_article(second)}" if prompt.kind == "how_to" else f"the {second} of {with_article(first)}"


def _critique_reply(topic: str, behaviour: str, good: bool) -> str:
    reply = phrases.CRITIQUES[topic][1]
    if good:
        return f"{reply} {phrases.PRAISE}"
    if behaviour not in phrases.FAULTS[topic]:
        return f"{reply} {phrases.OTHER_FAULT}"
    return f"{'Yes.' if reply == 'No.' else 'No.'} {phrases.FINDINGS[behaviour]}"


def _turns(*texts: str) -> list[Turn]:
    return [{"role": "assistant" if index % 2 else "user", "content": text} for index, text in enumerate(texts)]
