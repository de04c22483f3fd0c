"""Laws of the reward heads and of the layout that computes a prompt once."""

import math

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignlab import losses
from alignlab.models import prompt_layout, reward_heads

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
PROMPTS = [[5, 6, 7, 8], [9], [10, 11]]
PAIRS = [[[12, 13, 2], [14, 2]], [[15, 2], [16, 17, 18, 2]], [[19, 20, 2], [21, 22, 2]]]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """The folder of a small language model; the tokenizer is of no importance here."""
    folder = tmp_path_factory.mktemp("policy")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SHAPE)).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 2}, unk_token="<pad>"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>").save_pretrained(folder)
    return folder


@pytest.fixture(params=["last", "pooled"])
def model(request, policy):
    torch.manual_seed(1)
    return reward_heads.new_reward_model(policy, request.param, 0.0)[0].eval()


def plain(model, prompt, completion):
    """The score of one completion by itself, as the model's own class computes it."""
    ids = torch.tensor([prompt + completion])
    if isinstance(model, reward_heads.PooledReward):
        return model(ids, torch.tensor([[0] * len(prompt) + [1] * len(completion)])).logits[0, 0]
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, 0]


def test_positions_and_sight_of_a_row_by_hand():
    segments = torch.tensor([[0, 0, 1, 1, 2, 2, 2, -1]])
    assert prompt_layout.counts(segments).tolist() == [[2, 2, 3]]
    assert prompt_layout.positions(segments)[0, :7].tolist() == [0, 1, 2, 3, 2, 3, 4]
    assert prompt_layout.last_tokens(segments).tolist() == [[3, 6]]
    seen = prompt_layout.attention_mask(segments)[0, 0].int().tolist()
    assert seen[3] == [1, 1, 1, 1, 0, 0, 0, 0]
    assert seen[5] == [1, 1, 0, 0, 1, 1, 0, 0]
    assert [line[7] for line in seen[:7]] == [0] * 7


def test_pack_lays_prompts_and_completions_in_rows():
    packed = prompt_layout.pack([[5], [6, 7]], [[[8], [9, 9]], [[1], [2]]], pad=0)
    assert packed.input_ids.tolist() == [[5, 8, 9, 9], [6, 7, 1, 2]]
    assert packed.segments.tolist() == [[0, 1, 2, 2], [0, 0, 1, 2]]


def test_shared_prompts_give_the_plain_scores_and_gradients(model):
    packed = reward_heads.scores(model, prompt_layout.pack(PROMPTS, PAIRS, 0))
    alone = torch.stack(
        [torch.stack([plain(model, p, c) for c in pair]) for p, pair in zip(PROMPTS, PAIRS, strict=True)]
    )
    assert torch.allclose(packed, alone, atol=1e-6)
    gradients = []
    for rewards in (packed, alone):
        loss = losses.reward(rewards[:, 0], rewards[:, 1], 0.1).mean()
        gradients.append(
            torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
        )
    for shared, single in zip(*gradients, strict=True):
        assert torch.allclose(shared, single, atol=1e-6)


def test_padding_changes_nothing(model):
    row = prompt_layout.pack(PROMPTS[:1], PAIRS[:1], 0)
    padded = prompt_layout.Packed(
        *(torch.nn.functional.pad(t, (0, 9), value=v) for t, v in zip(row, (0, -1), strict=True))
    )
    assert torch.allclose(reward_heads.scores(model, row), reward_heads.scores(model, padded), atol=1e-6)


def test_an_answer_does_not_see_the_other(model):
    first = reward_heads.scores(model, prompt_layout.pack([[5, 6]], [[[7, 2], [8, 9, 2]]], 0))[0, 1]
    second = reward_heads.scores(model, prompt_layout.pack([[5, 6]], [[[30, 31, 32, 2], [8, 9, 2]]], 0))[0, 1]
    assert torch.allclose(first, second, atol=1e-6)


def test_the_head_starts_small(policy):
    for head, width in (("last", 16), ("pooled", 48)):
        torch.manual_seed(0)
        drawn = torch.cat(
            [
                reward_heads.head_of(reward_heads.new_reward_model(policy, head, 0.0)[0]).weight.detach().flatten()
                for _ in range(20)
            ]
        )
        assert drawn.std() == pytest.approx(1 / math.sqrt(width + 1), rel=0.15)


def test_the_backbone_is_the_policy(policy, model):
    theirs = LlamaForCausalLM.from_pretrained(policy).model.state_dict()
    ours = (model.backbone if isinstance(model, reward_heads.PooledReward) else model.model).state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)


def test_the_loss_by_hand():
    even = losses.reward(torch.tensor([3.0]), torch.tensor([3.0]), 0.0)
    assert even.item() == pytest.approx(math.log(2))
    # -log sigmoid(2) = 0.126928; 0.01 * (3 + 1)^2 = 0.16
    assert losses.reward(torch.tensor([3.0]), torch.tensor([1.0]), 0.01).item() == pytest.approx(0.286928, abs=1e-6)


def test_buckets_hold_every_row_once_and_start_again_the_same():
    from alignlab.training.batching import Buckets

    lengths = [n % 17 for n in range(103)]
    order = Buckets(lengths, 4, seed=0)
    first, again = list(order), list(order)
    order.set_epoch(1)
    assert sorted(first) == list(range(103))
    assert first == again != list(order)
    batches = [[lengths[row] for row in first[start : start + 4]] for start in range(0, 100, 4)]
    # the 103 rows are one pool with six or seven rows of each length, so four in a row span at most two lengths
    assert max(max(batch) - min(batch) for batch in batches) <= 1
