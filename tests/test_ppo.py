"""PPO on tiny models: what it starts from, what it learns, and that micro-batches and kills do not change the end."""

import json
import os
import re
import signal
import time
from collections import Counter
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from command import config
from tiny import tiny_model, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, LlamaForSequenceClassification

from alignlab import losses
from alignlab.config.compose import check
from alignlab.errors import Mistake
from alignlab.methods import ppo
from alignlab.models.from_scratch import base_model
from alignlab.models.log_probs import pad_rows
from alignlab.models.sampling import Completion, Sampling, sample_token_ids
from alignlab.rewards.running_stats import RunningStats
from alignlab.runtime.stage_run import Run
from alignlab.training.ppo import forward_pass, value_models
from alignlab.training.ppo.actor_critic import ActorCritic
from alignlab.training.ppo.experience import AdvantageOptions, Measured, build_experience, score_scale, shape_scores
from alignlab.training.ppo.gradients import is_value_weight
from alignlab.training.ppo.kl_controller import KLController
from alignlab.training.ppo.minibatches import minibatches, rollout_rows
from alignlab.training.ppo.model_offload import models_in, resident
from alignlab.training.ppo.rollout_metrics import explained_variance
from alignlab.training.ppo.trainer import PPOTrainer

pytestmark = pytest.mark.slow

SMALL = [
    "model.vocab_size=300", "model.hidden_size=16", "model.intermediate_size=24", "model.num_hidden_layers=2",
    "model.num_attention_heads=2", "model.num_key_value_heads=2", "model.max_position_embeddings=128",
    "evaluation=none", "tracking=jsonl", "hardware.device=cpu", "hardware.threads=1",
    "reward=function", f"reward.function={__name__}:letters",
    "method.batch_size=8", "method.num_mini_batches=2", "method.num_ppo_epochs=2", "method.max_new_tokens=6",
    "method.max_length=96", "method.gates.before=off", "method.gates.during=off", "method.learning_rate=0.01",
]  # fmt: skip

LEARN = ["method.total_episodes=960", "method.batch_size=64", "method.kl_coef=0.0", "method.lr_scheduler_type=constant"]


LEAN = "method.activation_checkpointing=true"


def letters(prompts, completions, finished):
    """Reward the share of small letters, which a random byte-level model can learn to write."""
    return [sum("a" <= letter <= "z" for letter in text) / max(1, len(text)) for text in completions]


def how_very(prompts, completions, finished):
    """Reward nothing that a completion can do."""
    return [float(turns[-1]["content"].count("very")) for turns in prompts]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    said = ({"prompt": f"What is {'very ' * (n % 4)}{n}?", "completion": f"It is {n}."} for n in range(20))
    file.write_text("".join(json.dumps(row) + "\n" for row in said))
    return file


def trained(rows, folder, *more, log=None, method="ppo"):
    """PPO (or another method that has its loop) on a tiny model; gives the run and what was logged of each rollout."""
    small = [one for one in SMALL if "reward=mixture" not in more or not one.startswith("reward")]
    settings = config(f"method={method}", "model=scratch", "dataset=file", f"dataset.path={rows}", *small, *more)
    policy = base_model(settings.model, settings.dataset)
    folder.mkdir(exist_ok=True)
    logged = []

    def keep(metrics, step):
        logged.append(metrics | {"step": step})
        if log:
            log(metrics, step)

    run = Run(settings, settings.method, {"policy": policy}, folder, SimpleNamespace(log=keep))
    torch.manual_seed(0)
    ppo.train(run)
    return run, [metrics for metrics in logged if "reward/mean" in metrics]


def weights(folder, kind=AutoModelForCausalLM):
    return kind.from_pretrained(folder).state_dict()


def same(first, second, tolerance=0.0):
    return first.keys() == second.keys() and all(
        torch.allclose(first[name], second[name], atol=tolerance, rtol=0) for name in first
    )


def test_the_first_rollout_is_the_references_own_and_the_ratio_is_one(rows, tmp_path):
    _, logged = trained(rows, tmp_path, "method.total_episodes=16")
    first, second = logged
    assert first["policy/kl"] == pytest.approx(0, abs=1e-5)
    assert first["policy/kl_exact"] == pytest.approx(0, abs=1e-5)
    assert first["policy/first_ratio"] == pytest.approx(1, abs=1e-5)
    assert first["value/mean"] == 0
    assert second["policy/kl_exact"] > 1e-4  # it has moved
    assert second["policy/first_ratio"] == pytest.approx(1, abs=1e-4)  # and begins anew from where it is


def test_what_continuous_batching_draws_is_learned_from_as_well(rows, tmp_path):
    _, logged = trained(rows, tmp_path, "method.total_episodes=16", "method.engine=continuous")
    assert all(metrics["policy/engine_mismatch_max"] < 1e-4 for metrics in logged)
    assert logged[0]["policy/first_ratio"] == pytest.approx(1, abs=1e-5)
    assert logged[0]["policy/kl_exact"] == pytest.approx(0, abs=1e-5)
    assert logged[1]["policy/kl_exact"] > 1e-4


LOW_RANK = ["model/adapter=lora", "method.learning_rate=0.03", "method.temperature=0.05", "method.batch_size=32"]


@pytest.mark.parametrize(
    "more",
    [
        ["method.value=shared", "method.total_episodes=768"],
        LOW_RANK,
        [*LOW_RANK, "method.value=adapter"],
    ],
    ids=["shared", "lora", "adapter"],
)
def test_what_is_rewarded_becomes_more(rows, tmp_path, more):
    run, logged = trained(rows, tmp_path, *LEARN, "method.total_episodes=256", *more)
    assert logged[-1]["reward/mean"] > logged[0]["reward/mean"] + 0.2
    assert (tmp_path / "adapter").exists() == ("model/adapter=lora" in more)
    assert not same(weights(run.inputs["policy"]), weights(run.output), 1e-4)


def test_what_the_prompt_alone_decides_the_value_function_learns(rows, tmp_path):
    known = [f"reward.function={__name__}:how_very", "method.total_episodes=320", "method.batch_size=32"]
    _, logged = trained(rows, tmp_path, *LEARN, *known, "method.vf_coef=1")
    assert logged[0]["value/explained_variance"] == pytest.approx(0, abs=1e-6)  # its head starts at zero
    assert logged[-1]["value/explained_variance"] > 0.5
    assert logged[-1]["value/loss"] < logged[0]["value/loss"] / 2


def test_an_encoder_decoder_begins_at_its_reference_and_learns_too(rows, tmp_path):
    run, logged = trained(rows, tmp_path, *LEARN, "model.family=t5", "method.total_episodes=192")
    assert logged[0]["policy/first_ratio"] == pytest.approx(1, abs=1e-5)
    assert logged[0]["policy/kl_exact"] == pytest.approx(0, abs=1e-5)
    assert logged[-1]["policy/kl_exact"] > 1e-3
    weights(run.output, AutoModelForSeq2SeqLM)


def test_the_value_function_starts_from_a_reward_model_that_reads_the_same_tokens(tmp_path):
    policy, judge = tmp_path / "policy", tmp_path / "judge"
    tiny_model().save_pretrained(policy)
    tiny_tokenizer().save_pretrained(policy)
    tiny_tokenizer().save_pretrained(judge)
    torch.manual_seed(1)
    scorer = LlamaForSequenceClassification(AutoConfig.from_pretrained(policy, num_labels=1, attention_dropout=0.1))
    scorer.save_pretrained(judge)
    bound = config("method=ppo")
    run = Run(bound, bound.method, {"policy": policy, "reward_model": judge}, tmp_path, None)
    started = value_models.value_model(run)
    assert same(started.state_dict(), scorer.model.state_dict())
    assert started.config.attention_dropout == 0
    other = tiny_tokenizer()
    other.add_tokens(["a-word-more"])
    other.save_pretrained(judge)
    assert same(
        value_models.value_model(run).state_dict(), AutoModelForCausalLM.from_pretrained(policy).model.state_dict()
    )


def test_without_a_learning_rate_nothing_is_learned(rows, tmp_path):
    run, logged = trained(rows, tmp_path, "method.total_episodes=24", "method.learning_rate=0")
    assert same(weights(run.inputs["policy"]), weights(run.output))
    assert logged[-1]["policy/kl_exact"] == pytest.approx(0, abs=1e-5)


def test_micro_batches_and_recomputed_activations_give_the_same_step(rows, tmp_path):
    once = ["method.total_episodes=8", "method.num_ppo_epochs=1", "method.num_mini_batches=1"]
    whole, _ = trained(rows, tmp_path / "whole", *once)
    micro_batches, _ = trained(rows, tmp_path / "micro", *once, "hardware.micro_batch_size=3", LEAN)
    assert not same(weights(whole.inputs["policy"]), weights(whole.output))
    assert same(weights(whole.output), weights(micro_batches.output), 2e-4)  # Adam's first step is the gradient's sign


def killed(work, place, name, call, after=None):
    """Do work in a process that is killed at a call of a function, when a checkpoint is whole; return how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    real, calls = getattr(place, name), count(1)

    def struck(*given, **named):
        if next(calls) == call:
            while after and not list(after.parent.glob(f"{after.name}/whole.json")):  # a thread completes it
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **named)

    setattr(place, name, struck)
    try:
        work()
    finally:
        os._exit(0)


@pytest.mark.runs
@pytest.mark.parametrize("adapter", [[], ["model/adapter=lora"]], ids=["whole", "lora"])
def test_a_run_that_is_killed_ends_as_if_nothing_had_happened(rows, tmp_path, adapter):
    often = [
        *adapter,
        "method.total_episodes=48",
        "method.save_steps=2",
        "method.kl_target=0.05",
        "method.kl_horizon=50",
    ]
    often += ["reward=mixture", "~reward.parts.model", "+reward@reward.parts.letters.reward=function"]
    often += [f"reward.parts.letters.reward.function={__name__}:letters", "reward.parts.letters.weight=1.0"]
    often += ["reward.parts.letters.normalize=true"]
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    checkpoints = cut / "checkpoints"
    end = -signal.SIGKILL
    assert (
        killed(lambda: trained(rows, cut, *often), PPOTrainer, "compute_loss", 11, checkpoints / "checkpoint-8") == end
    )  # in the third rollout's steps
    assert [path.name for path in checkpoints.iterdir()] == ["checkpoint-8"]
    saved = torch.load(checkpoints / "checkpoint-8" / "actor.pt").keys()
    assert any("embed_tokens" in name for name in saved) == (not adapter)  # the frozen base is not saved
    assert killed(lambda: trained(rows, cut, *often), torch, "save", 2) == end  # in the midst of a checkpoint
    assert (checkpoints / "checkpoint-16").exists()
    assert (
        killed(lambda: trained(rows, cut, *often), forward_pass, "measure_batch", 7, checkpoints / "checkpoint-16")
        == end
    )  # after the fifth one's sampling
    run, after = trained(rows, cut, *often)
    unbroken, logged = trained(rows, whole, *often)
    assert same(weights(run.output), weights(unbroken.output))
    assert (len(after), len(logged)) == (2, 6)
    assert after == logged[4:]
    assert len({one["policy/kl_coef"] for one in logged}) > 1


def test_padding_changes_no_log_probability_and_no_value():
    tokenizer, model = tiny_tokenizer(), tiny_model()
    torch.manual_seed(0)
    actor = ActorCritic(model, None, 0.7, [0, 1])
    torch.nn.init.normal_(actor.head.weight)
    prompts, completions = [[6, 7], [8, 9, 10, 11]], [[12, 13, 2], [14]]
    together = pad_rows(prompts, completions, tokenizer.pad_token_id, "cpu")
    (logps, _), values = actor(together)
    for row in range(2):
        alone = pad_rows([prompts[row]], [completions[row]], tokenizer.pad_token_id, "cpu")
        (logps_alone, _), values_alone = actor(alone)
        size = len(completions[row])
        assert torch.allclose(logps[row, :size], logps_alone[0], atol=1e-5)
        assert torch.allclose(values[row, :size], values_alone[0], atol=1e-5)
        assert logps[row, size:].tolist() == [0.0] * (3 - size)
    logps.sum().backward()  # padding is ruled out, and what is ruled out has no gradient
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in actor.parameters())


def test_log_probabilities_are_those_of_the_distribution_that_was_drawn_from():
    tokenizer, model = tiny_tokenizer(), tiny_model()
    actor = ActorCritic(model, None, 0.5, [0, 1])
    prompt, said = [6, 7, 8], [9, 10, 2]
    batch = pad_rows([prompt], [said], 0, "cpu")
    found = actor(batch)[0].logps[0]
    whole = model(torch.tensor([prompt + said])).logits[0].double() / 0.5
    whole[:, [0, 1]] = -torch.inf
    by_hand = whole.log_softmax(-1)[torch.arange(2, 5), torch.tensor(said)]
    assert torch.allclose(found.double(), by_hand, atol=1e-5)
    drawn = sample_token_ids(model, tokenizer, [prompt] * 400, Sampling(0.5, 1.0, 1, 400), seed=1)
    share = Counter(answer.tokens[0] for answer in drawn)[9] / 400
    assert share == pytest.approx(by_hand[0].exp().item(), abs=0.1)


def test_prompts_come_round_in_turn():
    seen = [row for number in range(5) for row in rollout_rows(10, 4, number, seed=3)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    assert rollout_rows(10, 4, 3, seed=3) == seen[12:16]
    assert len(rollout_rows(3, 8, 0, seed=0)) == 8


def test_minibatches_hold_every_row_once_and_micro_batches_rows_of_similar_length():
    lengths = [5, 1, 9, 3, 7, 2, 8, 4, 6, 0]
    found = minibatches(10, 2, 2, lengths, (0, 1, 2))
    assert sorted(row for part in found for micro_batch in part for row in micro_batch) == list(range(10))
    assert [[len(micro_batch) for micro_batch in part] for part in found] == [[3, 2], [3, 2]]
    for part in found:
        assert max(lengths[row] for row in part[0]) < min(lengths[row] for row in part[1])
    assert minibatches(10, 2, 2, lengths, (0, 1, 2)) == found != minibatches(10, 2, 2, lengths, (0, 1, 3))


def test_the_controller_moves_towards_its_target():
    fixed, steered = KLController(0.1, None, 100), KLController(0.1, 6.0, 100)
    fixed.update(60.0, 10)
    assert fixed.value == 0.1
    steered.update(60.0, 10)  # ten times the target: the error is cut to 0.2
    assert steered.value == pytest.approx(0.1 * (1 + 0.2 * 10 / 100))
    steered.update(5.4, 50)  # a tenth below
    assert steered.value == pytest.approx(0.102 * (1 - 0.1 * 50 / 100))


def test_scores_are_set_to_a_scale_and_an_answer_without_an_end_pays():
    scores = torch.tensor([1.0, 3.0])
    assert score_scale(scores, RunningStats(), None) == (2.0, 1.0)
    assert score_scale(scores, RunningStats(), (0.0, 4.0)) == (2.0, 2.0)
    assert shape_scores(scores, [True, True], (2.0, 0.5), 1.0).tolist() == [-2.0, 2.0]
    assert shape_scores(scores, [True, False], None, 0.7).tolist() == pytest.approx([1.0, 2.3])


def test_an_experience_by_hand():
    answers = [Completion("a b a b", True, (4, 5)), Completion("c", False, (6,))]
    logps, reference = torch.tensor([[-1.0, -2.0], [-0.5, 0.0]]), torch.tensor([[-1.5, -1.0], [-0.5, 0.0]])
    values, zeros = torch.tensor([[0.2, 0.4], [0.1, 0.0]]), torch.zeros(2, 2)
    measured = Measured(logps, reference, values, zeros, zeros)
    scores = torch.tensor([1.0, -1.0])
    built = build_experience(3, [[1], [2]], answers, scores, scores, measured, 0.1, AdvantageOptions("k1", 1.0, 1.0))
    assert torch.allclose(built.kl, torch.tensor([[0.5, -1.0], [0.0, 0.0]]))
    # rewards are [-0.05, 1.1] and [-1]; with gamma and lambda 1 the returns are what is still to come
    assert torch.allclose(built.returns, torch.tensor([[1.05, 1.1], [-1.0, 0.0]]))
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert torch.allclose(built.advantages, losses.whiten(torch.tensor([[0.85, 0.7], [-1.1, 0.0]]), mask), atol=1e-6)


def test_explained_variance_by_hand():
    returns, mask = torch.tensor([[1.0, 3.0, 99.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    assert explained_variance(returns, returns, mask) == 1
    assert explained_variance(torch.tensor([[2.0, 2.0, 5.0]]), returns, mask) == 0
    assert explained_variance(torch.tensor([[3.0, 1.0, 5.0]]), returns, mask) == -3


def test_equal_scores_do_not_scale_up_later_ones():
    stats = RunningStats()
    assert score_scale(torch.zeros(96), stats, None) == (0.0, 1.0)
    second = torch.tensor([1.0] + [0.0] * 95)
    shaped = shape_scores(second, [True] * 96, score_scale(second, stats, None), 0.0)
    deviation = (1 / 192 - (1 / 192) ** 2) ** 0.5  # of all 192 scores so far
    assert shaped[0].item() == pytest.approx((1 - 1 / 192) / deviation)
    noise = torch.tensor([5.0, 5.0 + 1e-6] * 48)  # rounding errors of one score
    assert shape_scores(noise, [True] * 96, score_scale(noise, RunningStats(), None), 0.0).abs().max() < 1e-3


def test_policy_and_value_function_are_clipped_by_their_own_norms(rows, tmp_path, monkeypatch):
    clipped = []

    def keep(self, weights, norm):
        before = torch.nn.utils.get_total_norm([weight.grad for weight in weights])
        torch.nn.utils.clip_grad_norm_(weights, norm)
        clipped.append((len(weights), before, torch.nn.utils.get_total_norm([weight.grad for weight in weights])))
        return before

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", keep)
    _, logged = trained(rows, tmp_path, "method.total_episodes=8", "method.max_grad_norm=1e-4")
    assert [after.item() for _, _, after in clipped] == pytest.approx([1e-4] * len(clipped), rel=1e-2)
    assert len(clipped) == 2 * 2 * 2  # parts, epochs, minibatches
    assert logged[0]["policy/grad_norm"] == pytest.approx(sum(before.item() for _, before, _ in clipped[::2]) / 4)
    assert logged[0]["value/grad_norm"] == pytest.approx(sum(before.item() for _, before, _ in clipped[1::2]) / 4)


def test_the_value_function_may_have_a_learning_rate_of_its_own(rows, tmp_path):
    still = trained(rows, tmp_path / "a", *LEARN, "method.total_episodes=128", "method.value_learning_rate=0")[1]
    assert [metrics["value/mean"] for metrics in still] == [0.0, 0.0]  # its head stays at zero
    assert still[1]["policy/kl_exact"] > 1e-4
    alike = trained(rows, tmp_path / "b", *LEARN, "method.total_episodes=128")[1]
    assert alike[1]["value/mean"] != 0


def test_which_weights_are_the_value_functions():
    names = ["head.weight", "value.layers.0.weight", "policy.base.q_proj.lora_A.value.weight"]
    assert all(map(is_value_weight, names))
    assert not any(map(is_value_weight, ["policy.layers.0.value.weight", "policy.q_proj.lora_A.default.weight"]))


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("method.num_mini_batches=200", "method.num_mini_batches: 200 does not divide batch_size (96); every step"),
        ("method.max_steps=5", "method.max_steps: ppo counts completions; set total_episodes"),
        ("method.max_new_tokens=600", "method.max_new_tokens: 600 leaves no room in max_length"),
        ("method.kl_estimator=k4", "'k4' is none of 'k1', 'k2' or 'k3'"),
    ],
)
def test_settings_that_contradict_each_other(typed, said):
    with pytest.raises(Mistake, match=re.escape(said)):
        check(["method=ppo", typed], binds=True)


class Traveller(torch.nn.Linear):
    """Notes where it is sent."""

    def __init__(self):
        super().__init__(1, 1)
        self.sent = []

    def to(self, place):
        self.sent.append(str(place))
        return self


def test_what_only_answers_may_wait_in_main_memory():
    one, two = Traveller(), Traveller()
    inner = SimpleNamespace(reward=SimpleNamespace(model=two))
    ensemble = SimpleNamespace(parts={"a": SimpleNamespace(model=one), "b": inner})
    assert models_in(ensemble) == [one, two]
    with pytest.raises(KeyError), resident([one, two], "cuda:0", True):
        assert one.sent == two.sent == ["cuda:0"]
        raise KeyError
    assert one.sent == two.sent == ["cuda:0", "cpu"]
    with resident([one], "cuda:0", False):
        pass
    assert one.sent == ["cuda:0", "cpu"]


def test_where_networks_wait_changes_nothing(rows, tmp_path):
    few = ["method.total_episodes=16"]
    here, _ = trained(rows, tmp_path / "here", *few)
    waiting, _ = trained(rows, tmp_path / "waiting", *few, "method.offload=[reference,reward]")
    assert same(weights(here.output), weights(waiting.output))
