"""What PPO must not do, whatever it is handed: drop out, read ids that are not its own, forget where it began."""

import json
from types import SimpleNamespace

import pytest
import torch
from command import config
from peft import LoraConfig, get_peft_model
from tiny import tiny_model, tiny_tokenizer

from alignlab.methods import ppo
from alignlab.models import load, reward_heads
from alignlab.models.log_probs import forward, pad_rows, score_completions
from alignlab.runtime.stage_run import Run
from alignlab.training.ppo import value_models
from alignlab.training.ppo.actor_critic import ActorCritic, learned_state, reference_of
from alignlab.training.trainer import rows_at_once

pytestmark = pytest.mark.slow

SMALL = [
    *("method=ppo", "model=scratch", "hardware.device=cpu", "hardware.threads=1", "reward=function"),
    *(f"reward.function={__name__}:nothing", "method.max_new_tokens=8", "method.max_length=48", "evaluation=none"),
]


def nothing(prompts, completions, finished):
    """Reward nothing."""
    return [0.0] * len(completions)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def judged(policy, folder, head, template=None):
    """A reward model that was trained with dropout, as its own settings still say."""
    model, tokenizer = reward_heads.new_reward_model(policy, head, dropout=0.5)
    tokenizer.chat_template = template or tokenizer.chat_template
    load.save(model, tokenizer, folder)
    return model, folder


def run_of(policy, judge, *more):
    rows = policy / "rows.jsonl"
    rows.write_text(json.dumps({"prompt": "how do i", "completion": "bake bread"}) + "\n")
    settings = config(*SMALL, "dataset=file", f"dataset.path={rows}", *more)
    inputs = {"policy": policy} | ({"reward_model": judge} if judge else {})
    return Run(settings, settings.method, inputs, policy.parent, None)


@pytest.mark.parametrize("head", ["last", "pooled"])
def test_a_value_function_from_a_reward_model_has_its_weights_and_none_of_its_dropout(policy, tmp_path, head):
    model, judge = judged(policy, tmp_path / "rm", head)
    body = value_models.value_model(run_of(policy, judge))
    theirs = getattr(model, model.base_model_prefix).state_dict()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in body.state_dict().items())
    batch = pad_rows([[6, 7, 8]], [[9, 10, 2]], 0, "cpu")
    actor = ActorCritic(tiny_model(), body, 1.0, [0, 1]).train()
    torch.nn.init.normal_(actor.head.weight)
    assert torch.equal(actor(batch)[1], actor(batch)[1])


def test_a_value_function_does_not_start_from_a_reward_model_that_reads_other_ids(policy, tmp_path):
    _, judge = judged(policy, tmp_path / "rm", "pooled", template="{{ messages[0]['content'] }}")
    with torch.no_grad():
        changed = reward_heads.new_reward_model(policy, "pooled", 0.0)[0]
        changed.backbone.norm.weight.add_(1)
        changed.save_pretrained(judge)
    body = value_models.value_model(run_of(policy, judge))
    assert torch.equal(body.norm.weight, tiny_model().model.norm.weight)


def begun(policy, monkeypatch, *more):
    """What PPO hands to the Trainer: the networks, the Trainer's settings and the loop's."""
    kept = {}

    def keep(run, trainer, actor, tokenizer, settings, rows, **options):
        kept.update(options, actor=actor.train(), settings=settings)

    monkeypatch.setattr("alignlab.training.trainer.fit", keep)
    ppo.train(run_of(policy, None, *more))
    return kept


def read(actor, model, batch):
    return score_completions(forward(model, batch), batch.completion, batch.mask, actor.distribution).logps


def test_the_adapter_off_is_the_model_that_the_stage_starts_from_whatever_the_adapter_learns(
    policy, monkeypatch, capsys
):
    kept = begun(policy, monkeypatch, "model/adapter=lora", "model.adapter.lora_dropout=0.5", "method.value=shared")
    assert "ppo: lora_dropout=0.5 is ignored" in capsys.readouterr().err
    actor, batch = kept["actor"], pad_rows([[6, 7, 8], [6]], [[9, 10, 2], [11]], 0, "cpu")
    with torch.no_grad():
        start = read(actor, tiny_model(), batch)
        assert torch.equal(read(actor, actor.policy, batch), start)
        for name, weight in actor.named_parameters():
            if "lora_" in name:
                weight.add_(0.1)
        assert not torch.allclose(read(actor, actor.policy, batch), start, atol=1e-2)
        assert torch.equal(read(actor, actor.policy, batch), read(actor, actor.policy, batch))  # no dropout
        with reference_of(actor.policy, kept["reference"]) as reference:
            assert torch.equal(read(actor, reference, batch), start)


def test_policy_and_value_function_may_be_two_adapters_on_the_same_weights(policy, monkeypatch):
    actor = begun(policy, monkeypatch, "model/adapter=lora", "method.value=adapter")["actor"]
    batch = pad_rows([[6, 7, 8], [6]], [[9, 10, 2], [11]], 0, "cpu")
    torch.nn.init.normal_(actor.head.weight)
    learning = {name for name, weight in actor.named_parameters() if weight.requires_grad}
    assert {name.split(".")[-2] for name in learning} == {"default", "value", "head"}
    scores, values = actor(batch)
    scores.logps.sum().backward()
    assert {name for name, weight in actor.named_parameters() if weight.grad is not None} == {
        name for name in learning if ".default." in name
    }
    values.sum().backward()
    assert {name for name, weight in actor.named_parameters() if weight.grad is not None} == learning
    with torch.no_grad():
        for name, weight in actor.named_parameters():
            if ".value." in name:
                weight.add_(0.1)
        assert torch.equal(actor(batch)[0].logps, scores.logps)  # the policy does not see it
        assert not torch.allclose(actor(batch)[1], values, atol=1e-3)
        with reference_of(actor.policy, None) as reference:
            assert torch.equal(read(actor, reference, batch), read(actor, tiny_model(), batch))
    assert {name for name, weight in actor.named_parameters() if weight.requires_grad} == learning


def test_recomputed_activations_are_those_of_the_adapter_that_computed_them(policy, monkeypatch):
    """With `value=adapter` policy and value function share layers; each is recomputed with its own adapter."""
    actor = begun(policy, monkeypatch, "model/adapter=lora", "method.value=adapter")["actor"].train()
    batch = pad_rows([[6, 7, 8], [6]], [[9, 10, 2], [11]], 0, "cpu")
    torch.nn.init.normal_(actor.head.weight)
    torch.manual_seed(0)
    for name, weight in actor.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)

    def gradients():
        actor.zero_grad()
        scores, values = actor(batch)
        (scores.logps.sum() + values.square().sum()).backward()
        return {name: weight.grad.clone() for name, weight in actor.named_parameters() if weight.grad is not None}

    plain = gradients()
    assert any(".value." in name and gradient.abs().max() > 1e-3 for name, gradient in plain.items())
    actor.gradient_checkpointing_enable(gradient_checkpointing_kwargs={})
    recomputed = gradients()
    assert actor.policy.active_adapter == "default"
    assert plain.keys() == recomputed.keys()
    assert all(torch.allclose(recomputed[name], gradient, atol=1e-5) for name, gradient in plain.items())


def test_a_checkpoint_with_an_adapter_holds_what_learns(policy, monkeypatch, tmp_path):
    whole = begun(policy, monkeypatch)["actor"]
    assert set(learned_state(whole)) == set(whole.state_dict())
    actor = begun(policy, monkeypatch, "model/adapter=lora", "method.value=adapter")["actor"]
    state = {name: weight.clone() for name, weight in learned_state(actor).items()}
    assert set(state) == {name for name, weight in actor.named_parameters() if weight.requires_grad}
    assert all("lora_" in name or name.startswith("head.") for name in state)
    with torch.no_grad():
        for weight in actor.parameters():
            if weight.requires_grad:
                weight.add_(1)
    actor.load_state_dict(state)
    assert all(torch.equal(weight, state[name]) for name, weight in actor.named_parameters() if weight.requires_grad)
    with pytest.raises(RuntimeError, match="Missing key"):
        actor.load_state_dict(dict(list(state.items())[2:]))


def test_a_checkpoint_of_what_learns_fits_a_model_whose_embeddings_are_tied():
    tied = tiny_model()
    tied.config.tie_word_embeddings = True
    tied.tie_weights()
    actor = ActorCritic(get_peft_model(tied, LoraConfig(target_modules=["q_proj"])), None, 1.0, [])
    saved = {name: weight + 1 for name, weight in learned_state(actor).items()}
    assert "policy.base_model.model.lm_head.weight" in actor.state_dict().keys() - saved.keys()
    actor.load_state_dict(saved)
    assert all(torch.equal(weight, saved[name]) for name, weight in actor.named_parameters() if weight.requires_grad)


def test_the_reference_is_frozen_and_the_settings_reach_the_trainer(policy, monkeypatch, capsys):
    kept = begun(policy, monkeypatch, "hardware.micro_batch_size=20", "method.max_grad_norm=0.7")
    said = "ppo: 40 rollouts of 96 completions, 3 passes of 2 steps with 48 completions each, in 3 micro-batches"
    assert said in capsys.readouterr().err
    settings, reference = kept["settings"], kept["reference"]
    assert (settings.adam_epsilon, settings.max_grad_norm, settings.max_steps) == (1e-5, 0.7, 240)
    assert (settings.gradient_accumulation_steps, settings.save_steps % 6) == (3, 0)
    assert not any(weight.requires_grad for weight in reference.parameters())
    assert not {id(weight) for weight in reference.parameters()} & {id(w) for w in kept["actor"].parameters()}


def test_only_the_completions_logits_are_computed(policy):
    batch = pad_rows([[6, 7, 8, 9, 10]], [[9, 10, 2]], 0, "cpu")
    model = tiny_model()
    sizes = []
    model.lm_head.register_forward_hook(lambda _module, _inputs, logits: sizes.append(len(logits)))
    ActorCritic(model, None, 1.0, [0, 1])(batch)
    assert sizes[-1] == 3


def test_on_a_cpu_a_step_is_cut_into_equal_micro_batches_of_at_most_two_thousand_tokens():
    run = SimpleNamespace(config=config("method=ppo", "hardware.device=cpu"))
    assert [rows_at_once(run, 48, lambda size=size: size) for size in (20, 100, 5000)] == [48, 16, 1]
    assert rows_at_once(run, 48, None) == 48
    run = SimpleNamespace(config=config("method=ppo", "hardware.device=cpu", "hardware.micro_batch_size=20"))
    assert (rows_at_once(run, 48, lambda: 100), rows_at_once(run, 8, lambda: 100)) == (20, 8)
