"""Models with random weights and a tokenizer of the data set's own."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignlab.chat import encode
from alignlab.config.dataset import HhRlhfData
from alignlab.config.model import ScratchModel
from alignlab.models.from_scratch import base_folder, base_model


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two dozen short pairs."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    said = [(f"\n\nHuman: How do I bake bread number {n}?\n\nAssistant: ", n) for n in range(24)]
    rows = [{"chosen": f"{start}Knead it {n} times.", "rejected": f"{start}No."} for start, n in said]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    test = file.with_name("test.jsonl")
    test.write_text(
        json.dumps({"chosen": "\n\nHuman: zyx?\n\nAssistant: b", "rejected": "\n\nHuman: zyx?\n\nAssistant: c"})
    )
    settings = {
        "learn": "all",
        "label_pairs": False,
        "max_rows": None,
        "validation": 0.0,
        "on_broken": "stop",
        "max_rejects": 0.0,
    }
    return HhRlhfData(kind="hh_rlhf", train=(file,), test=(test,), **settings)


def shape(**changed):
    sizes = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return ScratchModel(**{"kind": "scratch", "family": "llama", "seed": 0, **sizes, **heads, **changed})


@pytest.fixture(scope="module")
def folder(dataset):
    return base_model(shape(), dataset)


def test_the_folder_is_named_before_it_is_made(dataset, folder):
    assert base_folder(shape(), dataset) == folder
    assert base_folder(shape(seed=1), dataset) != folder
    assert base_folder(shape(hidden_size=32), dataset) != folder


def test_the_model_has_the_shape_that_was_asked_for(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM"
    # embeddings; a layer: q and o 16*16, k and v 16*8 each, three feed-forward 16*24, two norms of 16; last norm
    assert sum(p.numel() for p in model.parameters()) == 300 * 16 + 2 * (2 * 256 + 2 * 128 + 3 * 384 + 2 * 16) + 16


def test_pad_ends_nothing(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert len(tokenizer) == 300


@pytest.mark.parametrize("text", ["How do I bake bread?", "naïve 🙂 \t\n  two  spaces ", "日本", "<b>&amp;"])
def test_any_text_comes_back_as_it_was(folder, text):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_an_answer_ends_with_the_end_of_its_turn(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = encode(tokenizer, [{"role": "user", "content": "How?"}], "So.")
    assert tokenizer.decode(encoded.prompt) == "<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(encoded.completion) == "So.<|im_end|>"
    assert encoded.completion[-1] == tokenizer.eos_token_id


def test_the_seed_draws_the_weights(dataset, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    before = torch.get_rng_state()
    again = base_model(shape(), dataset)
    other = base_model(shape(seed=1), dataset)
    assert torch.equal(torch.get_rng_state(), before)
    first, same, different = (AutoModelForCausalLM.from_pretrained(p).lm_head.weight for p in (folder, again, other))
    assert torch.equal(first, same)
    assert not torch.equal(first, different)
    assert (folder / "tokenizer.json").read_bytes() == (again / "tokenizer.json").read_bytes()


def test_the_tokenizer_learns_from_training_rows_alone(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer.encode(" bread")) == 1
    assert len(tokenizer.encode("zyx")) == 3
