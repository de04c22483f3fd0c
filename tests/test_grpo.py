"""PPO without a value function: advantages by hand, what is loaded and saved, and resuming."""

import re
import signal

import pytest
import torch
from command import config
from test_ppo import LEARN, killed, same, trained, weights
from test_ppo import rows as rows

from alignlab import losses
from alignlab.config.compose import check
from alignlab.errors import Mistake
from alignlab.models.sampling import Completion
from alignlab.pipeline.memory_per_role import Subject, value
from alignlab.training.ppo.experience import AdvantageOptions, Measured, build_experience
from alignlab.training.ppo.trainer import PPOTrainer

GROUPS = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])  # two groups of three


def test_advantages_over_a_group_by_hand():
    deviation = 7**0.5  # of 1, 2, 6: squares 4 + 1 + 9, divided by 2
    by_hand = [-2 / (deviation + 1e-4), -1 / (deviation + 1e-4), 3 / (deviation + 1e-4), 0, 0, 0]
    assert losses.group_advantages(GROUPS, 3).tolist() == pytest.approx(by_hand)
    assert losses.group_advantages(GROUPS, 3, scale=False).tolist() == [-2, -1, 3, 0, 0, 0]
    assert losses.leave_one_out_advantages(GROUPS, 3).tolist() == [1 - 4, 2 - 3.5, 6 - 1.5, 0, 0, 0]


@pytest.mark.parametrize("reward", [0.1, 1 / 3, 1e8])
def test_equal_rewards_give_exactly_no_advantage(reward):
    equal = torch.full((7,), reward)
    assert losses.group_advantages(equal, 7).tolist() == losses.leave_one_out_advantages(equal, 7).tolist() == [0.0] * 7


def experience(**options):
    """Two completions of one prompt, of two tokens and one; the policy is 0.5 nats a token above the reference."""
    logps = torch.tensor([[-1.0, -1.0], [-1.0, 0.0]])
    reference = torch.tensor([[-1.5, -1.5], [-1.5, 0.0]])
    measured = Measured(logps, reference, *[torch.zeros(2, 2)] * 3)
    completions = [Completion("a b", True, (1, 2)), Completion("a", True, (1,))]
    scores = torch.tensor([3.0, 1.0])
    settings = AdvantageOptions("k1", 1.0, 1.0, group_size=2, **options)
    return build_experience(0, [[5], [5]], completions, scores, scores, measured, 0.4, settings)


def test_every_token_has_the_advantage_of_its_completion():
    # The KL of the first is 1 nat, of the second 0.5: what is compared is 3 - 0.4 and 1 - 0.2.
    learned = experience(kind="rloo")
    assert torch.allclose(learned.advantages, torch.tensor([[1.8, 1.8], [-1.8, 0.0]]))
    assert learned.returns is None
    assert learned.loss_kl_coef == 0


def test_a_penalty_in_the_loss_is_not_in_the_reward():
    learned = experience(kind="group", scale_groups=False, kl_in="loss")
    assert torch.allclose(learned.advantages, torch.tensor([[1.0, 1.0], [-1.0, 0.0]]))
    assert learned.loss_kl_coef == 0.4


SMALL_GROUPS = ["method.group_size=4", "method.kl_coef=0.1"]


@pytest.mark.slow
@pytest.mark.parametrize("advantage", ["group", pytest.param("rloo", marks=pytest.mark.runs)])
def test_the_reward_rises_without_a_value_function(rows, tmp_path, advantage):
    more = [*SMALL_GROUPS, f"method.advantage={advantage}", "method.total_episodes=1024"]
    run, logged = trained(rows, tmp_path, *LEARN, *more, method="grpo")
    assert logged[-1]["reward/mean"] > logged[0]["reward/mean"] + 0.2
    assert logged[0]["policy/first_ratio"] == pytest.approx(1, abs=1e-5)
    assert not [name for name in logged[0] if name.startswith("value/")]
    assert not same(weights(run.inputs["policy"]), weights(run.output), 1e-4)


@pytest.mark.slow
def test_the_kl_in_the_loss_holds_the_policy(rows, tmp_path):
    ends = {}
    for coef in (0, 2):
        more = [*LEARN, *SMALL_GROUPS, "method.total_episodes=256", f"method.kl_coef={coef}"]
        ends[coef] = trained(rows, tmp_path / str(coef), *more, method="grpo")[1][-1]["policy/kl_exact"]
    assert ends[2] < 0.75 * ends[0]


@pytest.mark.slow
def test_a_rollout_holds_all_completions_of_a_prompt_and_they_differ(rows, tmp_path, monkeypatch):
    collected = []
    collect = PPOTrainer.collect

    def keep(self, prompts, seed):
        completions = collect(self, prompts, seed)
        collected.append(([prompt.ids for prompt in prompts], [completion.tokens for completion in completions]))
        return completions

    monkeypatch.setattr(PPOTrainer, "collect", keep)
    trained(rows, tmp_path, "method.total_episodes=8", *SMALL_GROUPS, method="grpo")
    ((ids, completions),) = collected
    assert ids[0] == ids[1] == ids[2] == ids[3] != ids[4] == ids[5] == ids[6] == ids[7]
    assert len(set(completions)) == 8


@pytest.mark.slow
@pytest.mark.runs
def test_a_killed_run_ends_with_the_weights_of_an_uninterrupted_one(rows, tmp_path):
    often = ["method.total_episodes=32", "method.save_steps=2", *SMALL_GROUPS]
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    end = killed(
        lambda: trained(rows, cut, *often, method="grpo"), PPOTrainer, "compute_loss", 11, cut / "checkpoints" / "*"
    )
    assert end == -signal.SIGKILL
    saved = torch.load(next((cut / "checkpoints").iterdir()) / "actor.pt", weights_only=True)
    assert all(name.startswith("policy.") for name in saved)
    run, after = trained(rows, cut, *often, method="grpo")
    unbroken, logged = trained(rows, whole, *often, method="grpo")
    assert same(weights(run.output), weights(unbroken.output))
    assert after == logged[2:]


def test_the_plan_has_no_value_function():
    settings = config("method=grpo")
    assert list(value(Subject(settings, settings.method, {}, {}, 1000, 1))) == []
    ppo = config("method=ppo")
    assert [role.name for role in value(Subject(ppo, ppo.method, {}, {}, 1000, 1))] == ["value"]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            ["method.group_size=5"],
            "method.group_size: 5 does not divide batch_size (96); a rollout holds all completions",
        ),
        (["method.group_size=1"], "method.group_size: 1 leaves advantage=group nothing to compare a completion with"),
        (["method.kl_estimator=k1"], "method.kl_estimator: k1 is no penalty in the loss"),
    ],
)
def test_settings_that_contradict_each_other(typed, message):
    with pytest.raises(Mistake, match=re.escape(message)):
        check(["method=grpo", *typed], binds=True)


def test_the_value_function_and_the_advantage_go_together():
    with pytest.raises(Mistake, match=re.escape("method.value: separate is a value function, which advantage=rloo")):
        check(["method=ppo", "method.advantage=rloo", "method.group_size=4"], binds=True)
    with pytest.raises(Mistake, match=re.escape("method.value: none leaves gae without a value function")):
        check(["method=ppo", "method.value=none"], binds=True)
