"""Prompts lose their beginning first, whoever cuts them."""

import logging
from types import SimpleNamespace

import pytest
from tiny import TEMPLATE, ask, tiny_model, tiny_tokenizer

from alignlab.chat import Encoded, encode_prompt
from alignlab.errors import Failure
from alignlab.models.learned_tokens import earlier_answers
from alignlab.models.truncation import (
    context_length,
    cut_before_end,
    cut_pair,
    cut_row,
    cut_sides,
    cut_turns,
    encode_prompts,
    encode_within,
    room_for_prompt,
)


@pytest.mark.parametrize(
    ("prompt", "completion", "room", "kept"),
    [
        ([1, 2, 3], [4, 5], None, ([1, 2, 3], [4, 5])),
        ([1, 2, 3], [4, 5], 5, ([1, 2, 3], [4, 5])),
        ([1, 2, 3], [4, 5], 4, ([2, 3], [4, 5])),
        ([1, 2, 3], [4, 5, 6, 7], 3, ([3], [4, 5])),
    ],
)
def test_a_row_loses_its_prompts_beginning_then_its_completions_end(prompt, completion, room, kept):
    assert cut_row(Encoded(prompt, completion), room) == Encoded(*kept)


def test_both_completions_of_a_pair_see_the_same_prompt():
    chosen, rejected = Encoded([1, 2, 3, 4], [5, 6, 7]), Encoded([1, 2, 3, 4], [8])
    assert cut_pair(chosen, rejected, 5) == ([3, 4], [5, 6, 7], [8])
    assert cut_pair(chosen, rejected, 3) == ([4], [5, 6], [8])
    assert cut_pair(rejected, chosen, 9) == ([1, 2, 3, 4], [8], [5, 6, 7])


def test_an_encoder_decoder_reads_each_side_by_itself():
    assert cut_sides(Encoded([1, 2, 3], [4, 5, 6]), 2) == Encoded([2, 3], [4, 5])


def test_a_reward_model_keeps_the_end_of_the_turn():
    assert cut_before_end([1, 2, 3, 4], [[5, 9], [6, 7, 9]], 5) == ([3, 4], [[5, 9], [6, 7, 9]])
    assert cut_before_end([1, 2, 3], [[5, 6, 7, 8, 9]], 4) == ([3], [[5, 6, 9]])
    assert cut_before_end([1, 2], [[5, 9], [6, 9]], 64) == ([1, 2], [[5, 9], [6, 9]])


SYSTEM = {"role": "system", "content": "stop now"}
TALK = [
    SYSTEM,
    {"role": "user", "content": "how do i bake bread"},
    {"role": "assistant", "content": "mix flour and water"},
    {"role": "user", "content": "why water"},
]


@pytest.fixture
def tokenizer():
    """A tokenizer whose template begins a text with <s>, and writes a role, the text and, after an answer, an end."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "<s> " + TEMPLATE
    return tokenizer


def words(tokenizer, turns):
    return tokenizer.decode(encode_prompt(tokenizer, turns))


def test_a_prompt_is_cut_at_a_turn_and_keeps_its_beginning_and_its_system_turn(tokenizer):
    whole = len(encode_prompt(tokenizer, TALK))
    assert cut_turns(tokenizer, TALK, None) == cut_turns(tokenizer, TALK, whole) == TALK
    assert cut_turns(tokenizer, TALK, whole - 1) == [SYSTEM, TALK[3]]
    (ids,) = encode_prompts(tokenizer, [TALK], whole - 1)
    assert tokenizer.decode(ids) == "<s> <unk> stop now <user> why water <assistant>"  # <unk> is the role system


def test_a_turn_that_is_too_long_by_itself_loses_its_beginning(tokenizer):
    long = [SYSTEM, *ask("how", "do", "i", "bake", "bread")]
    assert words(tokenizer, cut_turns(tokenizer, long, 8)) == "<s> <unk> stop now <user> bake bread <assistant>"
    assert words(tokenizer, cut_turns(tokenizer, long, 5)) == "<s> <user> bake bread <assistant>"  # no room for both
    (ids,) = encode_prompts(tokenizer, [long], 2)
    assert len(ids) == 2


def test_a_long_answer_leaves_its_prompt_its_share(tokenizer):
    answer = " ".join(["bread"] * 40)
    turns, (row,) = encode_within(tokenizer, TALK, [answer], 32, 0.25)
    assert turns == [SYSTEM, TALK[3]]
    assert len(row.prompt) == 8
    kept = cut_row(row, 32, 0.25)
    assert kept.prompt == row.prompt
    assert len(kept.completion) == 24
    assert len(cut_row(row, 32, 0.0).prompt) == 1
    assert cut_pair(row, row, 32, 0.25)[0] == row.prompt
    assert cut_before_end(row.prompt, [row.completion], 32, 0.25)[0] == row.prompt


def test_rows_that_fit_are_not_cut(tokenizer):
    turns, (first, second) = encode_within(tokenizer, TALK, ["yes", "no"], 64)
    assert turns == TALK
    assert first.prompt == second.prompt == encode_prompt(tokenizer, TALK)


def test_prompts_that_are_cut_are_counted(tokenizer, caplog):
    with caplog.at_level(logging.WARNING, logger="alignlab"):
        encode_prompts(tokenizer, [TALK, ask("why")], 8)
    assert caplog.messages == ["1 of 2 prompts are longer than 8 tokens; their oldest turns are left out"]
    caplog.clear()
    assert encode_prompts(tokenizer, [TALK], None) == [encode_prompt(tokenizer, TALK)]
    assert not caplog.messages


def test_every_answer_of_a_conversation_is_learned_with_its_end(tokenizer):
    prompt = encode_prompt(tokenizer, TALK)
    learned = [
        token for token, is_learned in zip(prompt, earlier_answers(tokenizer, TALK, prompt), strict=True) if is_learned
    ]
    assert tokenizer.decode(learned) == "mix flour and water </s>"
    assert earlier_answers(tokenizer, ask("why"), encode_prompt(tokenizer, ask("why"))) == [0] * 4


def test_the_room_for_a_prompt_is_what_the_context_leaves():
    model = tiny_model(context=64)
    assert room_for_prompt(model, 24, "evaluation.max_new_tokens") == 40
    with pytest.raises(Failure, match=r"^evaluation.max_new_tokens: 64 leaves no room for a prompt .* 64 tokens"):
        room_for_prompt(model, 64, "evaluation.max_new_tokens")
    endless = SimpleNamespace(get_text_config=lambda: SimpleNamespace())
    assert context_length(endless) is None
    assert room_for_prompt(SimpleNamespace(config=endless), 64, "") is None
