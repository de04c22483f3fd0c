"""Prompts lose their beginning first, whoever cuts them."""

import logging
from types import SimpleNamespace

import pytest
from tiny import tiny_model

from alignlab.chat import Encoded
from alignlab.errors import Failure
from alignlab.models.truncation import (
    context_length,
    cut_before_end,
    cut_pair,
    cut_prompts,
    cut_row,
    cut_sides,
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


def test_prompts_that_are_cut_are_counted(caplog):
    with caplog.at_level(logging.WARNING, logger="alignlab"):
        assert cut_prompts([[1, 2, 3], [4]], 2) == [[2, 3], [4]]
    assert caplog.messages == ["1 of 2 prompts are longer than 2 tokens; their oldest part is left out"]
    caplog.clear()
    assert cut_prompts([[1, 2, 3]], None) == [[1, 2, 3]]
    assert not caplog.messages


def test_the_room_for_a_prompt_is_what_the_context_leaves():
    model = tiny_model(context=64)
    assert room_for_prompt(model, 24, "evaluation.max_new_tokens") == 40
    with pytest.raises(Failure, match=r"^evaluation.max_new_tokens: 64 leaves no room for a prompt .* 64 tokens"):
        room_for_prompt(model, 64, "evaluation.max_new_tokens")
    endless = SimpleNamespace(get_text_config=lambda: SimpleNamespace())
    assert context_length(endless) is None
    assert room_for_prompt(SimpleNamespace(config=endless), 64, "") is None
