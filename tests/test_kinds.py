"""Kinds of models and of data sets answer for themselves, and are found by their names."""

import re
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest
from command import ROOT, config

from alignlab import data
from alignlab.config import dataset as datasets
from alignlab.config import model as models
from alignlab.models import kinds
from alignlab.runtime.source_hash import imported

ASKED = re.compile(r"isinstance\([^\n]*\b(\w+Data|(Pocket|PocketT5|Scratch|Pretrained)Model)\b")


def kinds_of(base):
    """The kinds of all settings classes that derive from a class."""
    for settings in base.__subclasses__():
        yield from get_args(settings.model_fields["kind"].annotation)
        yield from kinds_of(settings)


def test_no_code_asks_for_the_class_of_a_kind():
    files = (ROOT / "alignlab").rglob("*.py")
    assert [str(file) for file in files if ASKED.search(file.read_text(encoding="utf-8"))] == []


def test_every_kind_has_a_module_with_the_same_functions():
    assert set(kinds.MODULES) == set(kinds_of(models.ModelSettings))
    assert set(data.MODULES) == set(kinds_of(datasets.DataSettings)) - {"dialogues"}  # which a file data set reads
    for name in kinds.MODULES.values():
        assert {"base_folder", "base_model"} <= set(dir(import_module(name)))
    for name in data.MODULES.values():
        assert {"view", "content", "prepared"} <= set(dir(import_module(name)))


@pytest.mark.parametrize(
    ("overrides", "encoder_decoder", "origin"),
    [
        (["model=pocket"], False, "made from its seed"),
        (["model=pocket_t5", "dataset=pocket_dialogues", "measure=[length]"], True, "made from its seed"),
        (["model=scratch", "model.family=t5"], True, "made from its seed"),
        (["model=smollm2_135m"], False, "HuggingFaceTB/SmolLM2-135M made ready"),
    ],
)
def test_a_model_answers_for_itself(overrides, encoder_decoder, origin):
    model = config("method=sft", *overrides).model
    assert (model.is_encoder_decoder, model.origin) == (encoder_decoder, origin)


def test_worlds_are_found_through_files():
    raw, dialogues = (config(f"dataset={name}", "task=prepare").dataset for name in ("pocket_raw", "pocket_dialogues"))
    assert raw.pocket_world == raw.world
    assert (raw.dialogue_world, raw.world_files) == (None, (Path("raw.csv"),))
    assert (dialogues.pocket_world, dialogues.dialogue_world, dialogues.input_paths) == (None, dialogues.world, {})


def test_only_drawn_rows_are_drawn_anew():
    pocket, raw = config("dataset=pocket").dataset, config("dataset=pocket_raw", "task=prepare").dataset
    assert pocket.redrawn(1000).seed == pocket.seed + 1000
    assert raw.redrawn(1000) == raw


def test_the_code_of_a_data_set_is_hashed_with_its_own_kind_alone():
    assert "alignlab.data.readers" in imported("alignlab.data.file_dataset")
    assert "alignlab.data.hh_rlhf" not in imported("alignlab.methods.sft")
