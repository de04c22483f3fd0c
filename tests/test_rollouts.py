"""Sampling: exact shares, the same random numbers in every batch, and no masked tokens."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from tiny import ask, tiny_model, tiny_tokenizer
from transformers import GenerationConfig

from alignlab.chat import encode_prompt
from alignlab.errors import Failure
from alignlab.models.engines import engine
from alignlab.models.sampling import (
    Sampling,
    draw_limits,
    draw_uniforms,
    neutral,
    sample,
    sample_token_ids,
)
from alignlab.models.token_choice import LIKELIEST, invert, nucleus, shares_of

PROMPTS = [
    ask("how"),
    ask("how", "do", "i", "bake", "bread"),
    ask("why"),
    ask("do", "i", "mix", "flour", "and", "water"),
]
ONE = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=12, batch_size=2)


def test_the_same_seed_gives_the_same_samples_and_another_seed_others() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    assert sample(model, tokenizer, PROMPTS, ONE, 3) == sample(model, tokenizer, PROMPTS, ONE, 3)
    assert sample(model, tokenizer, PROMPTS, ONE, 3) != sample(model, tokenizer, PROMPTS, ONE, 4)


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_neither_the_batch_nor_its_padding_changes_a_sample(batch_size: int) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    prompts = PROMPTS * 4
    expected = sample(model, tokenizer, prompts, ONE, 5)
    assert sample(model, tokenizer, prompts, ONE._replace(batch_size=batch_size), 5) == expected


def test_first_tokens_come_as_often_as_the_model_says() -> None:
    """4,000 samples at temperature 0.7: each share within four standard errors of the model's own."""
    model, tokenizer = tiny_model(1), tiny_tokenizer()
    settings = Sampling(temperature=0.7, top_p=1.0, max_new_tokens=1, batch_size=2000)
    drawn = Counter(one.tokens[0] for one in sample(model, tokenizer, [ask("how")] * 4000, settings, 0))
    with torch.no_grad():
        logits = model(torch.tensor([encode_prompt(tokenizer, ask("how"))])).logits[0, -1]
    logits[[0, 1]] = -torch.inf  # pad and bos are never sampled
    shares = torch.softmax(logits.double() / 0.7, dim=0).tolist()
    assert max(shares) < 0.9
    for token, share in enumerate(shares):
        assert abs(drawn[token] / 4000 - share) <= 4 * math.sqrt(share * (1 - share) / 4000) + 1e-9


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    shares = torch.tensor([[0.1, 0.5, 0.15, 0.25]], dtype=torch.float64)
    assert nucleus(shares, 0.7).tolist() == [[0.0, 0.5, 0.0, 0.25]]
    assert nucleus(shares, 0.5).tolist() == [[0.0, 0.5, 0.0, 0.0]]
    assert nucleus(shares, 1.0) is shares
    assert nucleus(3 * shares, 0.7).tolist() == [[0.0, 1.5, 0.0, 0.75]]  # shares need not sum to 1


def test_drawing_by_inversion_by_hand() -> None:
    """Shares 0.2, 0, 0.8: numbers below 0.2 give the first token, all others the last, never the one of share 0."""
    shares = torch.tensor([[0.2, 0.0, 0.8, 0.0]], dtype=torch.float64).repeat(5, 1)
    uniforms = torch.tensor([0.0, 0.1999, 0.2, 0.9, 1 - 1e-16], dtype=torch.float64)
    assert invert(shares, uniforms).tolist() == [0, 0, 2, 2, 2]


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512, 700])
def test_a_token_is_found_by_blocks_as_by_the_whole_cumulative_sum(size) -> None:
    generator = torch.Generator().manual_seed(size)
    shares = torch.rand(2000, size, generator=generator).square()
    shares[:, size // 2 + 1 :: 3] = 0
    uniforms = torch.rand(2000, dtype=torch.float64, generator=generator)
    cumulative = shares.double().cumsum(-1)
    expected = (cumulative <= uniforms[:, None] * cumulative[:, -1:]).sum(-1)
    assert torch.equal(invert(shares, uniforms), expected)


@pytest.mark.parametrize("size", [256, 300, 600])
def test_a_number_next_to_one_gives_the_last_token_that_has_a_probability(size) -> None:
    shares = torch.zeros(1, size)
    shares[0, [1, 255]] = 1
    assert invert(shares, torch.tensor([1.0], dtype=torch.float64)).tolist() == [255]
    assert invert(shares, torch.tensor([0.5 - 1e-16], dtype=torch.float64)).tolist() == [1]


def test_shares_are_proportional_to_probabilities_at_any_temperature() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0, 9.0], [0.0, -1.0, 2.0, 9.0]])
    for temperature in (1.0, 0.7, torch.tensor([[0.5], [2.0]])):
        shares = shares_of(scores.clone(), [3], temperature)
        expected = torch.softmax(scores[:, :3].double() / temperature, dim=-1)
        assert torch.allclose(shares[:, :3].double() / shares.double().sum(-1, keepdim=True), expected, atol=1e-7)
        assert shares[:, 3].tolist() == [0, 0]
    near = torch.tensor([[40.0, 40.0 + 4e-6]])  # as near as float32 has them
    assert shares_of(near, [], LIKELIEST)[0].tolist() == [pytest.approx(math.exp(-3.8147), rel=1e-3), 1.0]


def test_the_random_numbers_of_a_row_depend_on_its_seed_and_place_alone() -> None:
    assert np.array_equal(draw_uniforms(9, range(5), 8), draw_uniforms(9, range(50), 8)[:5])
    assert np.array_equal(draw_uniforms(9, range(5), 8), draw_uniforms(9, range(5), 20)[:, :8])
    assert not np.array_equal(draw_uniforms(9, range(1), 8), draw_uniforms(10, range(1), 8))


def test_a_completion_ends_with_its_end_token_or_is_unfinished() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    found = sample(model, tokenizer, PROMPTS * 25, ONE, 0)
    assert {one.finished for one in found} == {True, False}
    for one in found:
        assert one.finished == (one.tokens[-1] == tokenizer.eos_token_id)
        assert one.finished or len(one.tokens) == 12
        assert tokenizer.eos_token_id not in one.tokens[:-1]
        assert not {tokenizer.pad_token_id, tokenizer.bos_token_id} & set(one.tokens)
        assert "<" not in one.text


def test_the_models_own_generation_settings_are_put_aside_and_given_back() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    expected = sample(model, tokenizer, PROMPTS, ONE, 0)
    odd = GenerationConfig(
        repetition_penalty=5.0, min_new_tokens=10, no_repeat_ngram_size=1, top_k=1, do_sample=True, eos_token_id=2
    )
    model.generation_config = odd
    model.train()
    assert sample(model, tokenizer, PROMPTS, ONE, 0) == expected
    assert model.generation_config is odd
    assert model.training


def test_settings_are_given_back_after_an_error() -> None:
    model = tiny_model()
    own = model.generation_config
    with pytest.raises(KeyError), neutral(model):
        raise KeyError
    assert model.generation_config is own


def test_every_end_token_of_a_list_ends_a_completion() -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    model.generation_config.eos_token_id = [2, 7, 8, 9, 10]
    found = sample(model, tokenizer, PROMPTS * 5, ONE, 0)
    assert {one.tokens[-1] for one in found if one.finished} & {7, 8, 9, 10}
    assert not any({2, 7, 8, 9, 10} & set(one.tokens[:-1]) for one in found)


def test_a_long_prompt_loses_its_oldest_part_and_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    model, tokenizer = tiny_model(context=24), tiny_tokenizer()
    long = ask(*["bread"] * 60, "why", "now")
    found = sample(model, tokenizer, [long, ask("how")], ONE, 0)
    assert len(found[0].tokens) <= 12
    assert "1 of 2 prompts" in caplog.text


def test_a_context_without_room_for_a_prompt_is_refused() -> None:
    with pytest.raises(Failure, match="leaves no room"):
        sample(tiny_model(context=12), tiny_tokenizer(), PROMPTS, ONE, 0)


def test_no_prompts_give_no_completions() -> None:
    assert sample(tiny_model(), tiny_tokenizer(), [], ONE, 0) == []


DRAWN = ONE._replace(max_new_tokens_from=4)


def test_limits_are_drawn_evenly_between_both_bounds_and_apart_from_the_tokens() -> None:
    """9,000 limits from 4 to 12: a ninth each, within four standard errors."""
    found = draw_limits(5, 9000, DRAWN)
    counts = Counter(found.tolist())
    assert sorted(counts) == [*range(4, 13)]
    assert all(abs(count - 1000) < 4 * math.sqrt(9000 * 1 / 9 * 8 / 9) for count in counts.values())
    assert abs(np.corrcoef(found, draw_uniforms(5, range(9000), 1)[:, 0])[0, 1]) < 4 / math.sqrt(9000)
    assert np.array_equal(found[:50], draw_limits(5, 50, DRAWN))
    assert not np.array_equal(found, draw_limits(6, 9000, DRAWN))
    assert draw_limits(5, 3, ONE).tolist() == [12, 12, 12]
    assert draw_limits(5, 3, ONE._replace(max_new_tokens_from=12)).tolist() == [12, 12, 12]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_a_drawn_limit_cuts_the_completion_that_would_have_been_drawn_anyway(batch_size: int) -> None:
    model, tokenizer = tiny_model(), tiny_tokenizer()
    prompts = PROMPTS * 25
    whole = sample(model, tokenizer, prompts, ONE, 3)
    cut = sample(model, tokenizer, prompts, DRAWN._replace(batch_size=batch_size), 3)
    most = draw_limits(3, 100, DRAWN).tolist()
    assert [one.tokens for one in cut] == [one.tokens[:limit] for one, limit in zip(whole, most, strict=True)]
    for one, other, limit in zip(cut, whole, most, strict=True):
        assert one.finished == (other.finished and len(other.tokens) <= limit)
    assert sum(one.finished for one in cut) < sum(one.finished for one in whole)


def test_continuous_batching_draws_from_the_same_distribution_by_its_seed():
    model, tokenizer = tiny_model().eval(), tiny_tokenizer()
    prompts = [[6, 7, 8]] * 300 + [[9, 10]]
    sampling = Sampling(0.5, 1.0, 3, 64)
    batching = engine("continuous")
    first, again, other = (batching(model, tokenizer, prompts, sampling, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == len(prompts)
    exact = sample_token_ids(model, tokenizer, prompts, sampling, 1)
    shares = [Counter(answer.tokens[0] for answer in answers[:300]) for answers in (first, exact)]
    (token, often), *_ = shares[1].most_common(1)
    assert shares[0][token] / 300 == pytest.approx(often / 300, abs=0.1)
    for answer in first:
        assert answer.finished == (answer.tokens[-1] == tokenizer.eos_token_id)
        assert len(answer.tokens) == 3 or answer.finished
        assert not {0, 1} & {*answer.tokens}  # padding and the beginning are never drawn
    ids = torch.tensor([[*prompts[0], *first[0].tokens]])
    with torch.no_grad():
        logits = model(ids).logits[0, len(prompts[0]) - 1 : -1] / 0.5
    logits[:, [0, 1]] = -torch.inf
    logps = logits.log_softmax(-1)[range(len(first[0].tokens)), first[0].tokens]
    assert first[0].logps == pytest.approx(logps.tolist(), abs=1e-4)  # at the temperature, as the trainer has them
