"""What networks take: counted from the heads of their files, and held against transformers and peft."""

import pytest
from command import config
from peft import LoraConfig, get_peft_model
from tiny import tiny_model

from alignlab.models.references import Source
from alignlab.pipeline import memory_per_role

ADAPTED = "model/adapter=lora"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model = tiny_model()
    model.save_pretrained(folder)
    return folder, sum(one.numel() for one in model.parameters()), model.lm_head.weight.numel()


def sizes(folder, *overrides):
    bound = config("hardware.device=cpu", *overrides)
    here, absent = Source("base", folder, ""), Source("rm", folder / "none", "")
    inputs = {"policy": here} | ({"reward_model": absent} if bound.method.name == "ppo" else {})
    return {role.name: role.size for role in memory_per_role.roles(bound, bound.method, inputs, here)}


def test_the_heads_of_files_tell_every_tensor(saved):
    folder, parameters, head = saved
    found = memory_per_role.shapes(folder)
    assert memory_per_role.count(found) == parameters
    assert memory_per_role.count(memory_per_role.body(found)) == parameters - head
    assert memory_per_role.shapes(folder / "none") == {}


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_an_adapter_is_as_large_as_pefts(saved, targets):
    adapted = get_peft_model(tiny_model(), LoraConfig(r=3, target_modules=targets, task_type="CAUSAL_LM"))
    theirs = sum(one.numel() for one in adapted.parameters() if one.requires_grad)
    assert memory_per_role.low_rank(memory_per_role.shapes(saved[0]), 3, targets) == theirs


def test_roles_by_hand(saved):
    folder, n, head = saved
    assert sizes(folder) == {"policy": 16 * n, "value": 16 * (n - head), "reference": 4 * n, "reward model": 4 * n}
    extra = memory_per_role.low_rank(memory_per_role.shapes(folder), 16, "all-linear")
    lean = sizes(folder, ADAPTED, "method.value=shared", "hardware.dtype=bfloat16")
    assert lean == {
        "frozen weights": 2 * n, "policy's adapter": 16 * extra, "value": 0, "reference": 0, "reward model": 2 * n,
    }  # fmt: skip
    assert sizes(folder, "method=dpo") == {"policy": 16 * n, "reference": 4 * n}
    assert sizes(folder, "method=sft") == {"policy": 16 * n}


def test_a_model_that_is_not_at_hand_has_the_size_that_its_yaml_says(tmp_path):
    hub = ["dataset=hub", "dataset.path=owner/rows", "method=dpo"]
    assert sizes(tmp_path, "model=llama31_8b", *hub) == {"policy": 16 * 8030261248, "reference": 4 * 8030261248}
    assert sizes(tmp_path, "model=local", "model.path=owner/name", *hub) == {"policy": None, "reference": None}


def test_the_words():
    roles = [memory_per_role.Role("policy", 16_500_000), memory_per_role.Role("reference", 0, "off")]
    assert [*map(str, roles)] == ["policy 16.5 MB", "reference 0 B (off)"]
    assert [memory_per_role.in_bytes(size) for size in (999, 1000, 128e9, 4e12)] == [
        "999 B",
        "1.0 kB",
        "128 GB",
        "4000 GB",
    ]
