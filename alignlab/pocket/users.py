"""Simulated users of a server: they ask for what the pocket world is about, and judge the answers as annotators do.

A user sees the true quality of an answer with the probability that is the user's reliability. Everything is drawn from
the number of the feedback, so that a loop that was killed asks the same again.
"""

from random import Random
from typing import Any

from alignlab.pocket.annotators import prefers_first, true_score
from alignlab.pocket.answers import right_behaviour, write_answer
from alignlab.pocket.gold import RIGHT, judge
from alignlab.pocket.world import Prompt, Size, draw_kind, draw_prompt


def ask(number: int, seed: int, size: Size) -> tuple[Prompt, Random]:
    """Return the prompt of a feedback, and the generator of what its user does next."""
    random = Random(f"feedback {seed} {number}")
    return draw_prompt(draw_kind(random), size, random), random


def judge_answer(
    prompt: Prompt, answer: str, finished: bool, reliability: float, corrected: float, size: Size, random: Random
) -> dict[str, Any]:
    """Return a user's feedback on one answer: a thumb, the kind of harm, and maybe a correction.

    corrected: the share of bad answers for which a user writes a better one
    """
    judged = judge([{"role": "user", "content": prompt.text}], answer, finished)
    good = (judged.score == RIGHT) == (random.random() < reliability)
    if good:
        return {"thumb": "up"}
    feedback: dict[str, Any] = {"thumb": "down"}
    if not judged.harmless:
        feedback["categories"] = ["hate" if judged.toxic else "violence"]
    if random.random() < corrected:
        feedback["correction"] = write_answer(prompt, right_behaviour(prompt.kind), random, size)
    return feedback


def choose(prompt: Prompt, first: str, second: str, reliability: float, random: Random) -> int | None:
    """Return which of two answers a user prefers, 0 or 1; None for a tie."""
    if first == second or true_score(prompt, first) == true_score(prompt, second):
        return None
    return 0 if prefers_first(prompt, first, second, reliability, random) else 1
