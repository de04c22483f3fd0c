"""A model folder that brings Python code: it runs only where the user trusts it, and nobody is asked about it."""

import ast
import json
import sys
from types import SimpleNamespace

import pytest
from command import ROOT, config
from tiny import tiny_model, tiny_tokenizer
from transformers import dynamic_module_utils

from alignlab.config.hardware import Hardware
from alignlab.config.reward import ClassifierReward, ModelReward
from alignlab.errors import Failure
from alignlab.models import own_code, pretrained
from alignlab.models.load import load_policy, save
from alignlab.models.prepared_tokenizer import load_tokenizer
from alignlab.models.pretrained import base_model
from alignlab.models.references import check_generates
from alignlab.models.reward_heads import choose_head
from alignlab.rewards import load_reward
from alignlab.runtime import terminal

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
    "base": lambda folder: load_tokenizer(SimpleNamespace(path=folder, trust_remote_code=False), folder),
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


@pytest.fixture
def own_class(tmp_path, monkeypatch):
    """A model whose config, tokenizer and weights have classes of its own; each file of code leaves one when run."""
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)
    folder = tmp_path / "bought"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    for kind, code in OWN_CLASSES.items():
        (folder / f"{kind}.py").write_text(f"open({str(tmp_path / kind)!r}, 'w').close()\n{code}")
    change(
        folder / "config.json",
        model_type="own",
        auto_map={"AutoConfig": "own_config.C", "AutoModelForCausalLM": "own_model.M"},
    )
    change(
        folder / "tokenizer_config.json",
        tokenizer_class="OwnTokenizer",
        auto_map={"AutoTokenizer": [None, "own_tokenizer.OwnTokenizerFast"]},
    )
    yield folder
    own_code._trusted.clear()


OWN_CLASSES = {
    "own_config": "from transformers import LlamaConfig\nclass C(LlamaConfig):\n    model_type = 'own'\n",
    "own_model": "from transformers import LlamaForCausalLM\nfrom .own_config import C\n"
    "class M(LlamaForCausalLM):\n    config_class = C\n",
    "own_tokenizer": "from transformers import PreTrainedTokenizerFast\n"
    "class OwnTokenizerFast(PreTrainedTokenizerFast):\n    pass\n",
}


def change(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def prepared(folder, **more):
    """Prepare a model as a run does, with its code trusted or not; return its folder and how a run calls it."""
    settings = config("model=local", f"model.path={folder}", *(f"model.{name}={value}" for name, value in more.items()))
    pretrained.trust_base(settings)
    return base_model(settings.model), settings


def test_trusted_code_reads_config_tokenizer_and_weights(own_class, tmp_path):
    trusted, settings = prepared(own_class, trust_remote_code="true")
    model, tokenizer = load_policy(trusted, CPU)
    assert [type(each).__name__ for each in (model.config, model, tokenizer)] == ["C", "M", "OwnTokenizerFast"]
    assert all((tmp_path / kind).exists() for kind in OWN_CLASSES)
    save(model, tokenizer, tmp_path / "stage" / "model")
    assert own_code.is_trusted(tmp_path / "stage" / "model")
    check_generates("task.model", tmp_path / "stage" / "model")
    assert type(load_policy(tmp_path / "stage" / "model", CPU)[0]).__name__ == "M"
    assert list(own_code.warning(settings))
    with pytest.raises(Failure, match=r"rm\.policy: a reward model is not made of"):
        choose_head("rm", "auto", trusted, True)


def test_only_the_base_models_own_files_are_trusted(own_class, tmp_path):
    trusted, _ = prepared(own_class, trust_remote_code="true")
    reward_model = ModelReward(kind="model", path=str(own_class))
    with pytest.raises(Failure, match="which is not run"):
        load_reward(reward_model, {"reward": own_class}, CPU)
    (own_class / "custom_generate").mkdir()
    (own_class / "custom_generate" / "generate.py").write_text("")
    assert own_code.is_trusted(trusted)
    assert not own_code.is_trusted(own_class)


def test_code_that_another_repository_holds_is_not_trusted(own_class):
    change(own_class / "config.json", auto_map={"AutoConfig": "owner/name--own_config.C"})
    with pytest.raises(Failure, match=r"config\.json: names code of another repository \(.*owner/name--own_config"):
        prepared(own_class, trust_remote_code="true")


def test_trust_is_part_of_the_fingerprint_and_of_the_plan(own_class, monkeypatch):
    command = ["model=local", f"model.path={own_class}", "dry_run=true"]
    without, trusting = (config(*command, *more) for more in ([], ["model.trust_remote_code=true"]))
    assert not without.model.trust_remote_code
    assert pretrained.base_folder(without.model) != pretrained.base_folder(trusting.model)
    assert not list(own_code.warning(without))
    (line,) = own_code.warning(trusting)
    assert (terminal.red(line), line[-30:]) == (line, "(model.trust_remote_code=true)")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.red(line) == f"\033[31m{line}\033[0m"


# Where the auto classes may run code: what decides it, by file. Everywhere else the argument is False.
MAY_RUN = {
    "models/load.py": "trust",
    "models/pretrained.py": ("trust", "model.trust_remote_code"),
    "models/prepared_tokenizer.py": ("model.trust_remote_code", "own_code.is_trusted(folder)"),
    "training/ppo/value_models.py": "trust",
}


def test_everything_else_is_loaded_without_trust():
    """No call of transformers' auto classes leaves out the argument; PEFT runs no code of an adapter's folder."""
    package = ROOT / "alignlab"
    for file in package.rglob("*.py"):
        allowed = MAY_RUN.get(str(file.relative_to(package)), ())
        for node in ast.walk(ast.parse(file.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called.endswith((".from_pretrained", ".from_config")) and called != "PeftModel.from_pretrained":
                (value,) = [ast.unparse(key.value) for key in node.keywords if key.arg == "trust_remote_code"]
                assert value == "False" or value in allowed, f"{file}:{node.lineno}"
