"""What a run will use is checked before it trains: models, rewards and servers that cannot be used are one sentence."""

import sys

import pytest
from command import config
from tiny import tiny_model, tiny_tokenizer

from alignlab.errors import Explained
from alignlab.pipeline import input_checks
from alignlab.pipeline.model_references import check_models

FUNCTIONS = """
def right(prompts, completions, finished): return [0.0 for _ in completions]
def compares(prompts, completions, finished, references): return [0.0 for _ in completions]
def two(prompts, completions): return [0.0 for _ in completions]
def five(prompts, completions, finished, references, more): return [0.0 for _ in completions]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a model, without one part of it, a file of rows and a module of functions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    tiny_model().save_pretrained("model")
    tiny_tokenizer().save_pretrained("model")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "why", "chosen": "yes", "rejected": "no"}\n')
    (tmp_path / "scores.py").write_text(FUNCTIONS)
    yield tmp_path
    sys.modules.pop("scores", None)


def checked(*overrides):
    """Return the message of the checks of a command; empty where there is none."""
    made = config("model=local", "model.path=model", "dataset=file", "dataset.path=rows.jsonl", *overrides)
    try:
        check_models(made)
        input_checks.check_models(made)
        input_checks.check_rewards(made, [])
    except Explained as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (["function", "reward.function=scores:right"], ""),
        (["function", "reward.function=scores:compares"], ""),
        (["function", "reward.function=scores:two"], "scores:two(prompts, completions) cannot be called as"),
        (["function", "reward.function=scores:five"], "missing a required argument: 'more'"),
        (["url", "reward.url=http://127.0.0.1:9/", "reward.backoff=0"], "127.0.0.1:9/ cannot be reached"),
        (["judge", "reward.url=http://127.0.0.1:9/v1", "reward.model=x"], "127.0.0.1:9/v1 cannot be reached"),
        (["model", "reward.path=model"], "reward.path: "),
        (["classifier", "reward.path=model", "reward.label=x"], "has no head that scores; give a sequence classifier"),
    ],
)
def test_a_reward_that_cannot_be_used_is_named_before_training(reward, message, folder):
    said = checked("method=ppo", f"reward={reward[0]}", *reward[1:])
    assert message in said
    assert bool(message) == bool(said)


def test_a_model_without_weights_is_named_before_training(folder):
    (folder / "model" / "model.safetensors").unlink()
    assert checked("method=sft").startswith("model.path: ")
