"""One sentence for each way in which a model's files can be broken, before anything is trained."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_tokenizer

from alignlab.config.hardware import Hardware
from alignlab.errors import Failure
from alignlab.models.load import load_policy

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


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (pointer, r"model\.safetensors is a Git LFS pointer, not the weights; run git lfs pull"),
        (truncated, "no language model can be loaded from it"),
        (without_a_layer, r"9 of its weights are in no file, 'model\.layers\.1\."),
        (not_a_number, r"1 of its weights hold NaN or infinity, 'model\.norm\.weight' among them"),
    ],
)
def test_broken_weights_are_one_sentence(tmp_path, broken, message):
    tiny_model().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    load_policy(tmp_path, HARDWARE)
    broken(tmp_path / "model.safetensors")
    with pytest.raises(Failure, match=message) as caught:
        load_policy(tmp_path, HARDWARE)
    assert "\n" not in str(caught.value)
