"""A damaged model folder is one sentence, in the plan or before training: whatever file is broken, and however."""

import json
import shutil
import struct

import pytest
from command import config
from several import write_rows
from tiny import tiny_model, tiny_tokenizer

from alignlab.errors import Explained, Failure
from alignlab.models.load import load_policy
from alignlab.models.model_folder import check
from alignlab.pipeline import plan as planning
from alignlab.pipeline.prepare_inputs import locate_models, prepare_base, prepare_data

WEIGHTS = "model.safetensors"


def text(name, content):
    """Replace a file's text."""
    return lambda folder: (folder / name).write_text(content)


def field(name, **values):
    """Set fields of a JSON file."""

    def change(folder):
        file = folder / name
        file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | values))

    return change


def without(name):
    return lambda folder: (folder / name).unlink()


def content(name, change):
    """Change a file's bytes."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def index(shard):
    """Name a shard in an index of weights; the single file is gone."""

    def change(folder):
        (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
        (folder / "model.safetensors.index.json").write_text(shard)

    return change


def header(folder):
    """Let the header of the weights be longer than the file."""
    file = folder / WEIGHTS
    file.write_bytes(struct.pack("<Q", 1 << 40) + file.read_bytes()[8:])


MISSING_SHARD = json.dumps({"metadata": {}, "weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}})
CASES = {
    "config missing": without("config.json"),
    "config empty": text("config.json", ""),
    "config garbled": text("config.json", '{"model_type": "llama", '),
    "config a list": text("config.json", "[1, 2]"),
    "config null": text("config.json", "null"),
    "config binary": content("config.json", lambda old: b"\xff\xfe" + old),
    "config deep": text("config.json", "[" * 100_000),
    "config without type": text("config.json", "{}"),
    "config of unknown type": field("config.json", model_type="nothing"),
    "config with words for numbers": field("config.json", hidden_size="large"),
    "config with other sizes": field("config.json", hidden_size=32),
    "config with a smaller vocabulary": field("config.json", vocab_size=10),
    "config with a larger vocabulary": field("config.json", vocab_size=500),
    "config with no heads": field("config.json", num_attention_heads=0),
    "config with negative layers": field("config.json", num_hidden_layers=-1),
    "config with an odd architecture": field("config.json", architectures=[7]),
    "config with an unknown activation": field("config.json", hidden_act="swash"),
    "tokenizer missing": without("tokenizer.json"),
    "tokenizer empty": text("tokenizer.json", ""),
    "tokenizer garbled": text("tokenizer.json", '{"version": "1.0"'),
    "tokenizer a list": text("tokenizer.json", "[]"),
    "tokenizer without a model": text("tokenizer.json", '{"version": "1.0"}'),
    "tokenizer_config empty": text("tokenizer_config.json", ""),
    "tokenizer_config a list": text("tokenizer_config.json", "[]"),
    "tokenizer_config with an odd class": field("tokenizer_config.json", tokenizer_class=5),
    "tokenizer_config with a number for eos": field("tokenizer_config.json", eos_token=7),
    "generation_config garbled": text("generation_config.json", "{"),
    "generation_config a list": text("generation_config.json", "[]"),
    "generation_config with words": field("generation_config.json", eos_token_id="end"),
    "weights missing": without(WEIGHTS),
    "weights empty": text(WEIGHTS, ""),
    "weights cut": content(WEIGHTS, lambda old: old[:-500]),
    "weights zero": content(WEIGHTS, lambda old: bytes(len(old))),
    "weights a pointer": text(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 538090408\n"),
    "weights with a long header": header,
    "weights in a missing shard": index(MISSING_SHARD),
    "index garbled": index("{"),
    "index a list": index("[]"),
    "adapter garbled": text("adapter_config.json", "{"),
    "template broken": text("chat_template.jinja", "{% for m in messages %}"),
    "template that raises": text("chat_template.jinja", "{{ messages.nothing.here.at.all }}"),
    "template binary": content("chat_template.jinja", lambda old: b"\xff\xfe\x00"),
}
HARMLESS = {"config with an odd architecture"}  # a field that a run does not read
FILES = [name for name in CASES if name.startswith(("tokenizer", "weights", "index", "adapter")) or "config a" in name]
UNSEEN = {"tokenizer missing", "weights missing", "tokenizer_config with an odd class"}  # by a look at the files
UNSEEN |= {"tokenizer_config with a number for eos"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "model"
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def try_model(folder, rows):
    """Plan, prepare and load a model as a run does."""
    settings = config(
        "model=local", f"model.path={folder}", "dataset=file", f"dataset.path={rows}", "method=sft",
        "hardware.device=cpu", "hardware.threads=1", "method.max_length=32",
    )  # fmt: skip
    settings = locate_models(settings)
    prepare_data(settings)
    plan = planning.make(settings)
    list(planning.show(plan))
    planning.check_memory(plan)
    prepare_base(settings)
    load_policy(plan.base.path, settings.hardware)


@pytest.mark.parametrize("case", [name for name in FILES if name not in UNSEEN])
def test_a_damaged_file_of_a_model_is_named(tmp_path, whole, case):
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    check(folder)
    CASES[case](folder)
    with pytest.raises(Failure, match=r"json: |safetensors is |files of weights"):
        check(folder)


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("case", CASES)
def test_a_damaged_model_folder_is_one_sentence(tmp_path, monkeypatch, whole, case):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    CASES[case](folder)
    rows = write_rows(tmp_path / "rows.jsonl")
    if case in HARMLESS:
        try_model(folder, rows)
        return
    with pytest.raises(Explained) as caught:
        try_model(folder, rows)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500
