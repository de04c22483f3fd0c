"""The thin loop draws what transformers' own draws, whatever room there is and whichever rows have left."""

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer
from transformers import MistralConfig, MistralForCausalLM, T5Config, T5ForConditionalGeneration

from alignlab.models import decoding, sampling
from alignlab.models.decoding import PreallocatedLayer, cache_argument, decode, is_plain_decoder
from alignlab.models.sampling import InversionSampler, Sampling, draw_uniforms, generate, sample_token_ids

PROMPTS = [[6, 7, 8, 9], [10], [11, 12, 13, 2, 14, 15], [16, 17], [6], [7, 7, 7]]


def batch(prompts):
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    return ids, (torch.arange(width) >= width - torch.tensor([[len(prompt)] for prompt in prompts])).long()


def cut(row, limit, ends):
    row = row.tolist()[:limit]
    return row[: next((place + 1 for place, token in enumerate(row) if token in ends), len(row))]


def renamed(model):
    """Return the model with the argument of its cache named as transformers has it since 5.24."""
    old = type(model).forward

    class Renamed(type(model)):
        def forward(self, input_ids=None, position_ids=None, cache=None, logits_to_keep=0, **more):
            given = {cache_argument(old): cache}
            return old(self, input_ids, position_ids=position_ids, logits_to_keep=logits_to_keep, **given, **more)

    model.__class__ = Renamed
    return model


def test_the_argument_of_the_cache_has_two_names():
    (ids, mask), most = batch(PROMPTS), torch.full((6,), 8)
    rows = [
        decode(model, ids, mask, lambda logits, *_: logits.argmax(-1), torch.tensor([2]), most)
        for model in (tiny_model(), renamed(tiny_model()))
    ]
    assert torch.equal(*rows)


@pytest.mark.parametrize("ends", [{2}, {2, 9, 14}, set()], ids=["seldom", "often", "never"])
def test_the_same_tokens_as_generate(ends):
    model, (ids, mask) = tiny_model(), batch(PROMPTS)
    sampling = Sampling(0.9, 1.0, 20, 6)
    draw = InversionSampler(torch.from_numpy(draw_uniforms(3, range(6), 20)), ids.shape[1], sampling, [0, 1])
    most = torch.tensor([20, 20, 3, 20, 1, 20])
    with torch.inference_mode():
        ours = decode(model, ids, mask, draw.pick, torch.tensor(sorted(ends)), most)
        theirs = generate(model, ids, mask, draw, most, 0, ends)
    for mine, other, limit in zip(ours, theirs, most.tolist(), strict=True):
        assert cut(mine, limit, ends) == cut(other, limit, ends)


def test_a_prompt_that_is_answered_several_times_is_computed_once_and_answered_as_if_it_stood_there_so_often(
    monkeypatch,
):
    model, (ids, mask) = tiny_model(), batch(PROMPTS)
    draw = InversionSampler(
        torch.from_numpy(draw_uniforms(3, range(18), 12)), ids.shape[1], Sampling(0.9, 1.0, 12, 6), [0, 1]
    )
    most, sizes, forward = torch.full((18,), 12), [], decoding.forward
    monkeypatch.setattr(
        decoding, "forward", lambda model, ids, *rest: sizes.append(ids.shape) or forward(model, ids, *rest)
    )
    with torch.inference_mode():
        once = decode(model, ids, mask, draw.pick, torch.tensor([2]), most, copies=3)
        assert sizes[:2] == [(6, 6), (18, 1)]
        repeated = [one.repeat_interleave(3, 0) for one in (ids, mask)]
        often = decode(model, *repeated, draw.pick, torch.tensor([2]), most)
    assert [cut(row, 12, {2}) for row in once] == [cut(row, 12, {2}) for row in often]


def test_neighbours_with_one_prompt_are_computed_once_and_sampled_as_each_alone(monkeypatch):
    model, tokenizer, how = tiny_model(), tiny_tokenizer(), Sampling(1.0, 1.0, 6, 6)
    ids, computed = [[6, 7, 8]] * 3 + [[9, 10]] * 3, []
    alone = [sample_token_ids(model, tokenizer, ids, how, 5, rows=[row])[0] for row in range(6)]
    monkeypatch.setattr(
        sampling, "decode", lambda model, ids, *rest: computed.append(len(ids)) or decode(model, ids, *rest)
    )
    assert sample_token_ids(model, tokenizer, ids, how, 5) == alone
    assert sample_token_ids(model, tokenizer, ids, how, 5, rows=[0, 1, 3]) == [alone[0], alone[1], alone[3]]
    assert computed == [2, 3]
    assert len({answer.tokens for answer in alone}) > 2


def test_rows_that_have_ended_leave_the_batch(monkeypatch):
    model, (ids, mask) = tiny_model(), batch(PROMPTS)
    sizes, forward = [], decoding.forward
    monkeypatch.setattr(
        decoding, "forward", lambda model, ids, *rest: sizes.append(len(ids)) or forward(model, ids, *rest)
    )
    pick = lambda logits, step, rows: rows + 6  # noqa: E731  # each row says its own place
    with torch.inference_mode():
        found = decode(model, ids, mask, pick, torch.tensor([2]), torch.tensor([1, 1, 5, 4, 2, 2]))
    assert sizes == [6, 4, 2, 2, 1]
    assert [row[:most].tolist() for row, most in zip(found, (1, 1, 5, 4, 2, 2), strict=True)] == [
        [place + 6] * most for place, most in enumerate((1, 1, 5, 4, 2, 2))
    ]


def test_a_cache_with_room_holds_what_was_written_and_lets_rows_go():
    layer, first, second = PreallocatedLayer(3), torch.randn(2, 1, 2, 4), torch.randn(2, 1, 1, 4)
    layer.update(first, -first)
    keys, values = layer.update(second, -second)
    assert torch.equal(keys, torch.cat([first, second], dim=2))
    assert torch.equal(values, -keys)
    layer.keep(torch.tensor([1]))
    assert torch.equal(layer.keys, keys[1:])
    assert layer.get_seq_length() == 3


def test_only_plain_decoders_are_decoded_here():
    small = {
        "vocab_size": 20,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    assert is_plain_decoder(tiny_model())
    assert is_plain_decoder(renamed(tiny_model()))
    window = MistralForCausalLM(MistralConfig(**small, num_key_value_heads=1, sliding_window=4))
    assert not is_plain_decoder(window)
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=20, d_model=8, d_kv=8, d_ff=8, num_layers=1, num_heads=1))
    assert not is_plain_decoder(t5)
