"""The reward of grade-school mathematics: whether the number after `####` is the right one.

Scores as the rule of verl's GSM8K example (github.com/volcengine/verl, `verl/utils/reward_score/gsm8k.py`): 1 for the
right number in the asked form, 0 for another or for none.
"""

import re

from alignlab.chat import Turn

FINAL = re.compile(r"####\s*(-?[\d.,]+)")


def solved(
    prompts: list[list[Turn]], completions: list[str], finished: list[bool], references: list[str]
) -> list[float]:
    """Compare each completion's last answer with the reference's."""
    return [
        float((answer := final(completion)) is not None and answer == final(reference))
        for completion, reference in zip(completions, references, strict=True)
    ]


def final(text: str) -> float | None:
    """The number after the last `####`, without its thousands' commas; None where there is none."""
    found = FINAL.findall(text)
    digits = found[-1].replace(",", "").rstrip(".") if found else ""
    try:
        return float(digits)
    except ValueError:
        return None
