"""Batches that are halved when memory runs out: sampling, log-probabilities and PPO's measuring end as before."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer

from alignlab.chat import Encoded
from alignlab.models import fitting
from alignlab.models.fitting import cache_bytes, in_batches, rollout_batch_size
from alignlab.models.log_probs import completion_log_probs, pad_rows
from alignlab.models.sampling import Sampling, sample_token_ids
from alignlab.training.ppo.actor_critic import ActorCritic
from alignlab.training.ppo.forward_pass import measure_rows

PROMPTS = [[6, 7, 8], [9, 10], [11], [6, 12, 13, 14], [7], [8, 9]]


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(fitting, "_fitting", {})


def failing(model, rows):
    """Make a model's body run out of memory with more rows than that; return the sizes of all its batches."""
    sizes, forward = [], model.model.forward

    def limited(*given, input_ids=None, **named):
        sizes.append(len(input_ids))
        if len(input_ids) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(*given, input_ids=input_ids, **named)

    model.model.forward = limited
    return sizes


def test_batches_are_halved_until_they_fit_which_is_said_and_remembered(capsys):
    def work(batch):
        if len(batch) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return sum(batch)

    batches = list(in_batches(range(10), 8, work, "sampling"))
    assert batches == [([0, 1], 1), ([2, 3], 5), ([4, 5], 9), ([6, 7], 13), ([8, 9], 17)]
    said = capsys.readouterr().err
    assert said.count("memory ran out in sampling") == 2
    assert "with 4 rows at once; going on with 2" in said
    assert [batch for batch, _ in in_batches(range(3), 8, work, "sampling")] == [[0, 1], [2]]
    assert "memory ran out" not in capsys.readouterr().err
    assert list(in_batches(range(3), 8, work, "measuring")) == [([0, 1, 2], 3)]


def test_an_error_that_smaller_batches_do_not_help_is_raised():
    def too_large(batch):
        raise torch.OutOfMemoryError("out of memory")

    def broken(batch):
        raise RuntimeError("shapes differ")

    with pytest.raises(torch.OutOfMemoryError):
        list(in_batches(range(4), 4, too_large, "sampling"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(in_batches(range(4), 4, broken, "sampling"))


def test_work_whose_result_depends_on_its_batch_is_not_halved_and_a_stage_begins_anew():
    def work(batch):
        if len(batch) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return sum(batch)

    with pytest.raises(torch.OutOfMemoryError):
        list(in_batches(range(4), 4, work, "measuring", may_halve=False))
    assert len(list(in_batches(range(4), 4, work, "measuring"))) == 2
    fitting.forget()
    assert list(in_batches(range(4), 4, sum, "measuring")) == [([0, 1, 2, 3], 6)]


def test_sampling_in_smaller_batches_gives_the_same_completions():
    whole = sample_token_ids(tiny_model(), tiny_tokenizer(), PROMPTS, Sampling(1.0, 1.0, 8, 6), seed=3)
    model = tiny_model()
    sizes = failing(model, 2)
    assert sample_token_ids(model, tiny_tokenizer(), PROMPTS, Sampling(1.0, 1.0, 8, 6), seed=3) == whole
    assert sizes[:3] == [6, 3, 1]


def test_log_probabilities_and_measuring_are_the_same_in_smaller_batches():
    rows = [Encoded(prompt, [12, 13, 2]) for prompt in PROMPTS]
    completions = [SimpleNamespace(tokens=(12, 13, 2)[: 1 + n % 3]) for n in range(6)]

    def computed(model):
        scores = list(completion_log_probs(model, rows, [[0, 1, 2, 3, 4, 5]]))
        actor = ActorCritic(model, None, 0.7, [0, 1])
        torch.nn.init.ones_(actor.head.weight)
        with torch.no_grad():
            measured = measure_rows(
                actor, tiny_model(1), nullcontext(), PROMPTS, completions, [[0, 1, 2, 3, 4, 5]],
                lambda prompts, answers: pad_rows(prompts, answers, 0, "cpu"),
            )  # fmt: skip
        return {k: v for part in scores for k, v in part.items()}, measured

    whole, model = computed(tiny_model()), tiny_model()
    sizes = failing(model, 3)
    parts = computed(model)
    assert max(sizes) == 6
    assert len(sizes) > 5
    for row in range(6):
        assert torch.allclose(whole[0][row], parts[0][row], atol=1e-5)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(whole[1][row], parts[1][row], strict=True))


def test_as_many_rows_are_sampled_at_once_as_keys_values_and_logits_fit(monkeypatch):
    model = tiny_model()  # two layers of two heads of eight
    assert cache_bytes(model) == 2 * 2 * 2 * 8 * 4
    assert rollout_batch_size(model, 100, 96, None) == 96
    assert rollout_batch_size(model, 100, 96, 8) == 8
    monkeypatch.setattr(fitting, "CPU_BYTES", 10 * (100 * cache_bytes(model) + 48 * 20))
    assert rollout_batch_size(model, 100, 96, None) == 10
