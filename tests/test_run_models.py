"""A run's folder holds its models itself: they outlive the cache, share its space, and adapters name their base."""

import json
import os
import shutil
from types import SimpleNamespace

import pytest

from alignlab.models.references import Source
from alignlab.pipeline.train_stage import base_name, name_base
from alignlab.runtime import files


@pytest.fixture
def stage(tmp_path):
    folder = tmp_path / "cache" / "model"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    return folder


def test_weights_are_shared_and_settings_are_not_and_both_outlive_the_cache(stage, tmp_path):
    copy = tmp_path / "run" / "model"
    files.copy_sharing_weights(stage, copy)
    assert (copy / "model.safetensors").samefile(stage / "model.safetensors")
    assert not (copy / "config.json").samefile(stage / "config.json")
    shutil.rmtree(tmp_path / "cache")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    assert (moved / "model" / "model.safetensors").read_bytes() == b"weights"


def test_without_hard_links_weights_are_copied(stage, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    files.copy_sharing_weights(stage, tmp_path / "model")
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == b"weights"
    assert not (tmp_path / "model" / "model.safetensors").samefile(stage / "model.safetensors")


@pytest.mark.parametrize("before", ["a link", "a folder"])
def test_an_earlier_model_is_replaced(stage, tmp_path, before):
    copy, other = tmp_path / "model", tmp_path / "other"
    (other if before == "a link" else copy).mkdir()
    if before == "a link":
        copy.symlink_to(other)
    (copy / "old").touch()
    files.copy_sharing_weights(stage, copy)
    assert {path.name for path in copy.iterdir()} == {"model.safetensors", "config.json"}
    assert not copy.is_symlink()


def test_an_adapter_names_the_hub_id_or_the_run_s_own_stage_or_the_users_folder(tmp_path):
    def name(source, model_path=None):
        model = SimpleNamespace(pretrained=SimpleNamespace(path=model_path) if model_path else None)
        plan = SimpleNamespace(config=SimpleNamespace(model=model), stages=[SimpleNamespace(name="sft")])
        return base_name(plan, SimpleNamespace(source=Source(source, tmp_path, "")), tmp_path / "run" / "dpo")

    assert name("base", "owner/name") == "owner/name"
    assert name("base", str(tmp_path)) == str(tmp_path)
    assert name("sft") == str(tmp_path / "run" / "sft" / "model")
    assert name("somebody/else") == "somebody/else"
    adapter = tmp_path / "adapter"
    name_base(adapter, "nothing is there")
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"r": 8, "base_model_name_or_path": "/cache/x"}')
    (adapter / "README.md").write_text("base_model: /cache/x\n")
    name_base(adapter, "owner/name")
    assert (adapter / "README.md").read_text() == "base_model: owner/name\n"
    settings = json.loads((adapter / "adapter_config.json").read_text())
    assert settings == {"r": 8, "base_model_name_or_path": "owner/name"}
