"""A model folder that brings Python code: the code never runs, and nobody is asked about it."""

import ast
import json
from types import SimpleNamespace

import pytest
from command import ROOT

from alignlab.config.hardware import Hardware
from alignlab.config.reward import ClassifierReward, ModelReward
from alignlab.errors import Failure
from alignlab.models.load import load_policy
from alignlab.models.prepared_tokenizer import load_tokenizer
from alignlab.rewards import load_reward

CPU = Hardware(strategy="single", device="cpu", dtype="float32", micro_batch_size=None, threads=1)
CODE = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
Path({ran!r}).touch()
from transformers import LlamaConfig as Config, LlamaForCausalLM as Model
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder whose type transformers does not know, with code for config, model and tokenizer."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whoever is asked says yes
    model = tmp_path / "model"
    model.mkdir()
    (model / "code.py").write_text(CODE.format(ran=str(tmp_path / "ran")))
    code = {
        f"Auto{name}": "code.Config" if name == "Config" else "code.Model" for name in ("Config", "ModelForCausalLM")
    }
    (model / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": code}))
    own_tokenizer = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["code.Model", None]}}
    (model / "tokenizer_config.json").write_text(json.dumps(own_tokenizer))
    return model


LOADS = {
    "policy": lambda folder: load_policy(folder, CPU),
    "base": lambda folder: load_tokenizer(SimpleNamespace(path=folder), folder),
    "reward model": lambda folder: load_reward(ModelReward(kind="model", path=str(folder)), {"reward": folder}, CPU),
    "classifier": lambda folder: load_reward(
        ClassifierReward(kind="classifier", path=str(folder), label="a", output="logit", include_prompt=False), {}, CPU
    ),
}


@pytest.mark.parametrize("kind", LOADS)
def test_code_of_a_model_folder_is_not_run(kind, folder):
    with pytest.raises(Failure) as error:
        LOADS[kind](folder)
    assert "needs Python code of its own (auto_map), which is not run" in str(error.value)
    assert "\n" not in str(error.value)
    assert not list(folder.parent.rglob("ran"))


def test_everything_is_loaded_without_trust():
    """No call of transformers' auto classes leaves out the argument, or sets it to anything else."""
    for file in (ROOT / "alignlab").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"from_pretrained", "from_config"}:
                values = [key.value for key in node.keywords if key.arg == "trust_remote_code"]
                assert [getattr(value, "value", None) for value in values] == [False], f"{file}:{node.lineno}"
