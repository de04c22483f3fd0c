"""The reward of grade-school mathematics: 1 where the number after `####` is the reference's.

The rule is that of verl's GSM8K example (github.com/volcengine/verl, `verl/utils/reward_score/gsm8k.py`): 1 for the
right number in the asked form, 0 for another or for none.
"""

import re

from alignlab.chat import Turn

FINAL = re.compile(r"####\s*(-?[\d.,]+)")


def solved(
    prompts: list[list[Turn]], completions: list[str], finished: list[bool], references: list[str]
) -> list[float]:
    """Return 1.0 for each completion whose last answer is the reference's, else 0.0."""
    return [
        float((answer := final(completion)) is not None and answer == final(reference))
        for completion, reference in zip(completions, references, strict=True)
    ]


setattr(solved, "score_range", (0.0, 1.0))  # noqa: B010  # mypy knows no attributes of functions


def final(text: str) -> float | None:
    """Return the number after the last `####`, without its thousands' commas; None where there is none."""
    answers = FINAL.findall(text)
    digits = answers[-1].replace(",", "").rstrip(".") if answers else ""
    try:
        return float(digits)
    except ValueError:
        return None
