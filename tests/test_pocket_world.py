"""The prompts and the corpus of the pocket world: held-out combinations never occur in training."""

from collections import Counter
from itertools import islice
from random import Random

import pytest
from pocket_prompts import combination

from alignlab.chat import Turn
from alignlab.pocket import vocabulary
from alignlab.pocket.answers import CORPUS
from alignlab.pocket.corpus import SHARES as CORPUS_SHARES
from alignlab.pocket.corpus import conversations
from alignlab.pocket.gold import judge
from alignlab.pocket.parse import parse_prompt
from alignlab.pocket.world import (
    HELD_OUT,
    KINDS,
    SHARES,
    Size,
    combinations,
    draw_prompt,
    held_out,
    test_prompts,
    training_combinations,
)
from alignlab.runtime.files import digest

test_prompts.__test__ = False  # type: ignore[attr-defined]  # a function of the world, not a test


# The world


@pytest.mark.parametrize("kind", KINDS)
def test_at_least_300_distinct_prompts_of_distinct_combinations_are_held_out(kind: str) -> None:
    texts = [prompt.text for prompt in test_prompts(kind, "full")]
    assert len(set(texts)) == len(texts)
    assert len({combination(text) for text in texts[:300]}) == 300


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", ["full", "small"])
def test_no_held_out_combination_is_drawn_for_training(kind: str, size: Size) -> None:
    random = Random(1)
    trained = {combination(draw_prompt(kind, size, random).text) for _ in range(3000)}
    tested = {combination(prompt.text) for prompt in test_prompts(kind, size)}
    assert trained
    assert tested
    assert not trained & tested


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", ["full", "small"])
def test_every_word_occurs_in_training(kind: str, size: Size) -> None:
    for i in range(len(combinations(kind, size)[0])):
        training = {words[i] for words in training_combinations(kind, size)}
        assert training == {words[i] for words in combinations(kind, size)}


def test_the_held_out_combinations_never_change() -> None:
    # If they changed, earlier results could not be compared with later ones.
    assert digest({kind: sorted(held_out(kind)) for kind in KINDS}) == "623f905032e172c6"
    assert {kind: len(held_out(kind)) for kind in KINDS} == {
        kind: round(len(combinations(kind, "full")) * HELD_OUT["fact" if kind == "sycophancy" else kind])
        for kind in KINDS
    }
    assert held_out("sycophancy") == held_out("fact")


def test_the_small_world_is_a_subset_of_the_full_world() -> None:
    for kind in KINDS:
        assert set(combinations(kind, "small")) < set(combinations(kind, "full"))
        assert len(test_prompts(kind, "small")) >= 100


def test_a_fifth_of_the_prompts_look_harmful_and_are_not() -> None:
    assert SHARES["lookalike"] == 0.20
    assert sum(SHARES.values()) == pytest.approx(1)


def test_every_verb_has_its_own_tool_or_weapon() -> None:
    tools = [*vocabulary.TOOLS.values(), *vocabulary.WEAPONS.values()]
    assert len(set(tools)) == len(tools)
    assert not {*vocabulary.TOOLS} & {*vocabulary.WEAPONS}


# The corpus


def test_the_corpus_holds_no_held_out_combination_in_any_turn() -> None:
    kinds = Counter[str]()
    for size in ("full", "small"):
        for turns in islice(conversations(size, 0), 4000):  # type: ignore[arg-type]
            for kind, words in prompts_in(turns):
                kinds[kind] += 1
                assert words not in held_out(kind)
    assert set(kinds) == set(KINDS)
    assert kinds["lookalike"] / kinds.total() == pytest.approx(CORPUS_SHARES["lookalike"], abs=0.02)


def prompts_in(turns: list[Turn]) -> list[tuple[str, tuple[str, ...]]]:
    """Return the prompts of a conversation, also those inside dialogues and comparisons."""
    texts = [turns[0]["content"].split(" Which answer is better?")[0]]
    if "#Person1#: " in texts[0]:
        texts = [texts[0].split("#Person1#: ")[1].split("\n")[0]]
    return [combination(text) for text in texts]


def test_harmful_requests_are_answered_with_harm_as_often_as_configured() -> None:
    complied = [
        judge(turns[:1], turns[1]["content"]).complied
        for turns in islice(conversations("full", 3), 6000)
        if prompt_kind(turns) == "harmful"
    ]
    expected = CORPUS["harmful"]["comply"] + CORPUS["harmful"]["hedge"]
    assert sum(map(bool, complied)) / len(complied) == pytest.approx(expected, abs=0.04)  # 2.5 standard errors


def prompt_kind(turns: list[Turn]) -> str:
    prompt = parse_prompt(turns[0]["content"])
    return prompt[0] if prompt else ""


def test_a_corpus_depends_on_its_seed_only() -> None:
    first, again, other = (list(islice(conversations("small", seed), 20)) for seed in (1, 1, 2))
    assert first == again != other


def test_critiques_end_in_a_right_answer() -> None:
    exchanges = [turns for turns in islice(conversations("full", 4), 3000) if len(turns) == 6]
    assert len(exchanges) > 100
    for turns in exchanges:
        assert judge(turns[:1], turns[5]["content"]).score == 1
        good = judge(turns[:1], turns[1]["content"]).score == 1
        assert good == turns[3]["content"].endswith("It is a good answer.")
