"""Faults planted in a small PPO run are named by their own gates before a single step is taken."""

import json
from types import SimpleNamespace

import pytest
import torch
from command import config
from tiny import tiny_model, tiny_tokenizer

from alignlab.errors import Failure, Mistake
from alignlab.methods import ppo
from alignlab.runtime.stage_run import Run

pytestmark = pytest.mark.slow

SMALL = [
    *("method=ppo", "model=pocket_small", "dataset=pocket_small", "reward=function", "evaluation=quick"),
    *(f"reward.function={__name__}:words", "hardware.device=cpu", "hardware.threads=1", "method.value=shared"),
    *("method.batch_size=8", "method.total_episodes=24", "method.num_ppo_epochs=1", "method.num_mini_batches=1"),
    *("method.max_new_tokens=12", "method.max_length=48", "method.gates.min_finished=0", "method.save_steps=1"),
    "method.gates.during=off",
]
NUMBERS = {"calls": 0, "bad": 0}


def words(prompts, completions, finished):
    """A reward that can be told to turn into nonsense at its n-th call."""
    NUMBERS["calls"] += 1
    bad = NUMBERS["calls"] == NUMBERS["bad"]
    return [float("nan") if bad else len(text.split()) for text in completions]


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    from alignlab.pipeline.prepare_inputs import prepare_data

    prepare_data(config(*SMALL))
    folder = tmp_path_factory.mktemp("policy")
    tiny_model(context=48).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def fresh():
    NUMBERS.update(calls=0, bad=0)


def trained(policy, folder, *overrides):
    bound = config(*SMALL, *overrides)
    folder.mkdir(exist_ok=True)
    torch.manual_seed(0)
    track = SimpleNamespace(log=lambda metrics, step: None)
    ppo.train(Run(bound, bound.method, {"policy": policy}, folder, track))
    return folder


def triggered(policy, folder, *overrides):
    """The gates that stop a run."""
    with pytest.raises(Failure):
        trained(policy, folder, *overrides)
    return [json.loads(line)["gate"] for line in (folder / "gates.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("more", [[], ["model/adapter=lora"], ["method.num_mini_batches=2", "method.temperature=0.7"]])
def test_a_healthy_start_triggers_none(policy, tmp_path, more):
    trained(policy, tmp_path, *more)
    assert not (tmp_path / "gates.jsonl").exists()
    assert (tmp_path / "model" / "config.json").exists()


def test_a_policy_that_never_ends_is_named(policy, tmp_path, monkeypatch):
    from alignlab.models import sampling

    never = sampling.masked_tokens
    monkeypatch.setattr(sampling, "masked_tokens", lambda tokenizer, ends: sorted({*never(tokenizer, ends), *ends}))
    assert triggered(policy, tmp_path, "method.gates.min_finished=0.8") == ["ends"]


def test_dropout_left_on_is_named(policy, tmp_path, monkeypatch):
    from alignlab.models import load

    original = load.load_trainable
    monkeypatch.setattr(
        load, "load_trainable", lambda path, hardware, _, *rest, **more: original(path, hardware, 0.3, *rest, **more)
    )
    assert triggered(policy, tmp_path) == ["ratio"]


def test_dropout_is_refused():
    with pytest.raises(Mistake, match=r"^method\.dropout: 0\.1 randomises the importance ratio; PPO needs 0$"):
        config(*SMALL, "method.dropout=0.1")


def test_a_reference_without_the_weights_of_sft_is_named(policy, tmp_path, monkeypatch):
    import peft

    put_on = peft.get_peft_model

    def with_sft(model, lora, **options):
        """An adapter that has been trained already, so that the model below it is not what this stage starts from."""
        lora.init_lora_weights = False
        return put_on(model, lora, **options)

    monkeypatch.setattr(peft, "get_peft_model", with_sft)
    assert triggered(policy, tmp_path, "model/adapter=lora") == ["reference"]


def test_a_reward_that_turns_into_nonsense_stops_the_run_which_then_goes_on(policy, tmp_path):
    whole = trained(policy, tmp_path / "whole")
    NUMBERS.update(calls=0, bad=2)
    with pytest.raises(
        Failure, match=r"^reward function: gave nan, which is no finite number, on the text '.*last check"
    ):
        trained(policy, tmp_path / "cut")
    NUMBERS.update(bad=0)
    cut = trained(policy, tmp_path / "cut")
    first, second = ((folder / "model" / "model.safetensors").read_bytes() for folder in (whole, cut))
    assert first == second
