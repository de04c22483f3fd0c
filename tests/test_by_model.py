"""The values that `auto` stands for: pocket keeps its own, a real model gets those of its size and adapter."""

import json

import pytest
import yaml
from command import ROOT, config

from alignlab.config import by_model
from alignlab.config.compose import compose
from alignlab.config.groups import Groups
from alignlab.errors import Failure
from alignlab.pipeline import setting_origins

HUB = ["dataset=hub", "dataset.path=owner/rows"]
METHODS = Groups().options["method"]
LORA = "model/adapter=lora"
KINDS = [
    ("smollm2_135m", []),
    ("llama31_8b", [LORA]),
    *(
        pytest.param(model, adapter, marks=pytest.mark.runs)
        for model, adapter in (("smollm2_135m", [LORA]), ("pythia_1b", []), ("pythia_1b", [LORA]), ("llama31_8b", []))
    ),
]


def test_pocket_keeps_its_values():
    ppo = config()
    assert (ppo.method.learning_rate, ppo.method.kl_coef, ppo.method.max_new_tokens) == (2e-4, 0.3, 48)
    assert (ppo.method.max_length, ppo.method.value, ppo.evaluation.max_new_tokens) == (512, "separate", 48)
    sft, rm = ppo.stages["sft"], ppo.stages["rm"]
    assert (sft.learning_rate, sft.num_train_epochs, sft.max_length) == (5e-4, 2, 512)
    assert (rm.learning_rate, rm.num_train_epochs, rm.max_length) == (1e-3, 2, 256)
    dpo, cai = config("method=dpo").method, config("method=cai").method
    for method in (dpo, cai):
        assert (method.learning_rate, method.num_train_epochs) == (4e-4, 2)
        assert (method.beta, method.nll_weight) == (0.2, 0.2)
    assert config("method=rm").method.num_train_epochs == 1
    assert config("method=cai").stages["cai_sft"].num_train_epochs == 3
    assert len(cai.constitution.principles) == 4


@pytest.mark.parametrize(("model", "adapter"), KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_values_for_every_real_model(method, model, adapter):
    bound = config(f"method={method}", f"model={model}", *HUB, *adapter)
    for settings in (bound.method, *bound.stages.values()):
        assert settings.learning_rate < 1e-3
        assert settings.max_length >= 1024
        assert getattr(settings, "max_new_tokens", 256) == 256
        assert getattr(settings, "nll_weight", 0) == 0
        if constitution := getattr(settings, "constitution", None):
            assert len(constitution.principles) >= 16


@pytest.mark.parametrize("method", ["sft", "dpo", "rm", "ppo"])
def test_lora_has_a_larger_rate_and_a_larger_model_a_smaller_one(method):
    def rate(parameters, adapter="full"):
        kind = by_model.ModelKind("pretrained", adapter, parameters, "single")
        return by_model.row_for([method], "learning_rate", kind).settings["learning_rate"]

    assert rate(10**8, "lora") > rate(10**8)
    assert rate(7 * 10**10, "lora") > rate(7 * 10**10)
    rates = [rate(parameters) for parameters in (10**8, 10**9, 7 * 10**9, 7 * 10**10)]
    assert rates == sorted(rates, reverse=True)


def test_a_value_of_the_command_or_of_an_experiment_wins():
    assert config("method=dpo", "model=llama31_8b", *HUB, "method.beta=0.7").method.beta == 0.7
    assert config("experiment=zephyr_7b_dpo").method.beta == 0.01
    assert config("method=dpo", "method.beta=auto").method.beta == 0.2


def test_the_value_function_is_an_adapter_with_lora_where_the_weights_are_whole():
    lora = ["model=llama31_8b", *HUB, "model/adapter=lora"]
    assert config(*lora).method.value == "adapter"
    assert config(*lora, "hardware=zero3").method.value == "separate"
    assert config(*lora[:-1]).method.value == "separate"


def test_the_size_of_a_local_model_is_read_from_its_config(tmp_path):
    widths = {"model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80}
    widths |= {"num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(widths))
    assert by_model.size_of({"path": str(tmp_path)}) == pytest.approx(70.55e9, rel=0.01)  # Llama 3.1 70B
    assert config("method=sft", "model=local", f"model.path={tmp_path}", *HUB).method.learning_rate == 2e-6


def test_every_row_is_used_and_names_its_source():
    rows = yaml.safe_load((ROOT / "conf" / "by_model.yaml").read_text())
    assert [row for row in rows if not row["source"]] == []
    kinds = [
        by_model.ModelKind(models, adapter, size, strategy)
        for models in ("embedded", "pretrained")
        for adapter in ("full", "lora")
        for size in (10**8, 10**9, 10**10, 10**11)
        for strategy in ("single", "zero3")
    ]
    table = by_model.table()
    used = {
        (table.index(chosen), name)
        for kind in kinds
        for row in table
        for method in row.methods
        for name in row.settings
        if (chosen := by_model.row_for([method], name, kind))
    }
    assert used == {(number, name) for number, row in enumerate(table) for name in row.settings}


def test_the_plan_says_where_each_value_comes_from():
    bound = compose("method=dpo", "model=llama31_8b", *HUB, "model/adapter=lora", "method.beta=0.3")
    lines = list(setting_origins.describe(bound, bound.method, "method"))
    assert "beta 0.3 (command line)" in lines
    assert "batch_size 32 (conf/method/_training.yaml)" in lines
    rate = "learning_rate 5e-06 (conf/by_model.yaml for 8B parameters, LoRA: the alignment handbook's DPO with QLoRA"
    assert any(line.startswith(rate) for line in lines)
    bound = compose("experiment=tldr_pythia_160m_ppo")
    lines = list(setting_origins.describe(bound, bound.method, "method"))
    assert lines[0].startswith("learning_rate 3e-06, total_episodes 1000000")
    assert "experiment=" in lines[0]


def test_a_value_of_a_method_that_is_extended_and_of_an_experiment_by_path_has_its_file(tmp_path):
    bound = compose("method=grpo")
    lines = list(setting_origins.describe(bound, bound.method, "method"))
    assert any("total_episodes 3840" in line and line.endswith("(conf/method/ppo.yaml)") for line in lines)
    assert any("value none" in line and line.endswith("(conf/method/grpo.yaml)") for line in lines)
    (tmp_path / "mine.yaml").write_text("# @package _global_\nmethod:\n  batch_size: 48\n")
    bound = compose("method=sft", f"experiment={tmp_path / 'mine.yaml'}")
    lines = list(setting_origins.describe(bound, bound.method, "method"))
    assert any("batch_size 48" in line and "(experiment=" in line for line in lines)
    mine = tmp_path / "conf" / "method" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("# Mine.\ndefaults: [sft]\nlearning_rate: 3e-4\n")
    bound = compose(f"hydra.searchpath=[{mine.parent.parent}]", "method=mine")
    lines = list(setting_origins.describe(bound, bound.method, "method"))
    assert f"learning_rate 0.0003 ({mine})" in lines
    assert any(line.startswith("batch_size 32") and line.endswith("(conf/method/_training.yaml)") for line in lines)


def test_an_encoder_decoder_is_known_before_its_download():
    model = config("method=ppo", "model=flan_t5_base", "reward=function", "reward.function=os.path:join", *HUB).model
    assert model.is_encoder_decoder
    assert by_model.is_encoder_decoder(model.model_dump())


def test_a_damaged_model_folder_is_one_sentence(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(
        Failure, match=r"model\.safetensors: is no safetensors file, or its end is missing; .*git lfs pull"
    ):
        config("model=local", f"model.path={tmp_path}", *HUB, "method=dpo")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "config.json").write_text('{"model_type": "lla')
    with pytest.raises(Failure, match=r"config\.json: holds no JSON object; fetch the model again"):
        config("model=local", f"model.path={tmp_path}", *HUB, "method=dpo")


def test_a_method_without_a_value_is_told_so():
    from alignlab.config.by_model import fill_in

    tree = {"method": {"name": "mine", "learning_rate": "auto", "max_length": "auto", "policy": "auto"}}
    filled = fill_in(tree, {"method": ["mine", "method"]}, Groups()).tree["method"]
    assert filled == {"name": "mine", "learning_rate": "???", "max_length": 512, "policy": "auto"}


def test_automatic_lengths_fit_into_the_context_of_a_model_in_a_folder(tmp_path):
    settings = {"model_type": "qwen2", "max_position_embeddings": 256, "hidden_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    own = ["model=local", f"model.path={tmp_path}", "model.parameters=1000", "dataset=file", f"dataset.path={tmp_path}"]
    bound = config("method=sft", *own)
    assert (bound.method.max_length, bound.evaluation.max_new_tokens) == (256, 128)
    assert bound.origins["method.max_length"] == "the model's context has 256 tokens"
    assert config("method=sft", *own, "method.max_length=512").method.max_length == 512


def test_a_length_that_no_row_gives_is_reported_as_missing():
    """For a model whose context is known, too."""
    tree = {"model": {"kind": "pretrained", "path": str(ROOT)}, "method": {"name": "mine", "max_length": "auto"}}
    kind = by_model.kind_of(tree)._replace(context=128)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_model, "kind_of", lambda _: kind)
        assert by_model.fill_in(tree, {"method": ["mine"]}, Groups()).tree["method"]["max_length"] == "???"
