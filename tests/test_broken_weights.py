"""One sentence for each way in which a model's files can be broken, before anything is trained."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, LlamaForSequenceClassification

from alignlab.config.hardware import Hardware
from alignlab.config.model import PretrainedModel
from alignlab.errors import Failure
from alignlab.models import weight_files
from alignlab.models.load import check_weights, load_policy, load_whole
from alignlab.models.pretrained import grow_vocabulary
from alignlab.models.reward_heads import new_reward_model
from alignlab.rewards.reward_model import load_reward_model

HARDWARE = Hardware(strategy="single", device="cpu", dtype="float32", micro_batch_size=None, threads=1)


def pointer(file):
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 538090408\n")


def truncated(file):
    file.write_bytes(file.read_bytes()[:-100])


def without_a_layer(file):
    weights = load_file(file)
    kept = {name: tensor for name, tensor in weights.items() if "layers.1." not in name}
    save_file(kept, file, metadata={"format": "pt"})


def not_a_number(file):
    weights = load_file(file)
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, file, metadata={"format": "pt"})


SETTINGS = PretrainedModel(
    kind="pretrained", path="mine", revision="main", attn_implementation=None, chat_template=None
)
LOADERS = {
    "policy": lambda folder: load_policy(folder, HARDWARE),
    "new reward model, last": lambda folder: new_reward_model(folder, "last", 0.0),
    "new reward model, pooled": lambda folder: new_reward_model(folder, "pooled", 0.0),
    "reward model": lambda folder: load_reward_model(folder, HARDWARE),
    "growing the vocabulary": lambda folder: grow_vocabulary(SETTINGS, folder, folder / "grown", 30),
}
BROKEN = {
    pointer: r"model\.safetensors is a Git LFS pointer, not the weights; run git lfs pull",
    truncated: r"model\.safetensors is damaged or cut off \(.*\); download the model again",
    without_a_layer: r"9 of its weights are in no file, '(model\.)?layers\.1\.",
    not_a_number: r"1 of its weights hold NaN or infinity, '(model\.|backbone\.)?norm\.weight' among them",
}


def write(folder, loader):
    """Write the model that a loader reads."""
    model = tiny_model()
    if loader == "reward model":
        model = LlamaForSequenceClassification(model.config)
        model.config.num_labels = 1
        model = LlamaForSequenceClassification(model.config)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
@pytest.mark.parametrize("loader", LOADERS)
def test_broken_weights_are_one_sentence(tmp_path, loader, broken):
    write(tmp_path, loader)
    LOADERS[loader](tmp_path)
    broken(tmp_path / "model.safetensors")
    with pytest.raises(Failure, match=BROKEN[broken]) as caught:
        LOADERS[loader](tmp_path)
    assert "\n" not in str(caught.value)


def test_the_base_of_qlora_is_checked_in_its_files(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    not_a_number(tmp_path / "model.safetensors")
    quantised = tiny_model()
    quantised.is_quantized = True  # in memory, its weights are codes
    with pytest.raises(Failure, match="1 of its weights hold NaN or infinity"):
        check_weights(tmp_path, quantised, set())


def test_a_file_of_pickled_weights_that_is_cut_off(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    truncated(tmp_path / "pytorch_model.bin")
    with pytest.raises(Failure, match="no language model can be loaded from it"):
        load_whole(AutoModelForCausalLM, tmp_path)


def test_an_adapter_beside_a_config_is_named(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "adapter_model.safetensors")
    with pytest.raises(
        Failure, match=r"holds an adapter \(adapter_model.safetensors\) and not the weights of its model"
    ):
        weight_files.check(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    tiny_model().save_pretrained(tmp_path, max_shard_size="5KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    shards[-1].unlink()
    with pytest.raises(Failure, match=f"1 of its {len(shards)} files of weights are missing, {shards[-1].name} first"):
        weight_files.check(tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"num_hidden_layers": 1},
            "its files have the layer 'model.layers.1', and by its config.json it has fewer layers",
        ),
        ({"hidden_size": 32}, "its weights have other shapes than its config.json says"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_one_sentence(tmp_path, changed, message):
    tiny_model().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changed))
    with pytest.raises(Failure, match=message):
        load_whole(AutoModelForCausalLM, tmp_path)
