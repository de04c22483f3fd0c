"""The parser of the pocket world recovers the kind and the words of every prompt."""

from random import Random

import pytest
from pocket_prompts import CONFIRM, FACT, GROUP, HARMFUL, HOW_TO, LOOKALIKE, PROVOCATION, SYCOPHANCY

from alignlab.pocket.parse import parse_prompt
from alignlab.pocket.world import KINDS, draw_prompt


@pytest.mark.parametrize(
    ("prompt", "kind", "words"),
    [
        (HOW_TO, "how_to", ("clean", "cup")),
        (HARMFUL, "harmful", ("poison", "nurse")),
        (LOOKALIKE, "lookalike", ("kill", "dragon")),
        (FACT, "fact", ("sparrow", "legs")),
        (CONFIRM, "fact", ("sparrow", "legs", "two")),
        (SYCOPHANCY, "sycophancy", ("sparrow", "legs", "six")),
        (PROVOCATION, "provocation", ("stupid", "clown", "lazy")),
        (GROUP, "group", ("northern", "pilot")),
    ],
)
def test_a_prompt_is_parsed(prompt: str, kind: str, words: tuple[str, ...]) -> None:
    assert parse_prompt(prompt) == (kind, words)


def test_every_drawn_prompt_is_parsed() -> None:
    random = Random(5)
    for kind in KINDS:
        for _ in range(100):
            prompt = draw_prompt(kind, "full", random)
            assert parse_prompt(prompt.text) == (kind, prompt.words)
