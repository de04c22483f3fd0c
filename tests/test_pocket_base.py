"""The pocket base model: a standard folder, the same weights for the same seed, and a lossless tokenizer."""

import json
from itertools import islice
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from alignlab.chat import Turn, encode, encode_prompt
from alignlab.config.model import PocketModel
from alignlab.models.pocket import base
from alignlab.pocket.corpus import conversations

pytestmark = pytest.mark.slow

SMALL = PocketModel(kind="pocket", seed=0, size="small")
TURNS: list[Turn] = [{"role": "user", "content": "How do I clean a cup?"}]
ANSWER = "Take the sponge and clean the cup in the kitchen."


@pytest.fixture(scope="module")
def folder() -> Path:
    return base.base_model(SMALL)


def test_the_folder_loads_with_transformers(folder: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert type(model) is LlamaForCausalLM
    assert tokenizer.is_fast
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 4
    for place in (model.config, model.generation_config):
        assert (place.pad_token_id, place.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert model.config.vocab_size == len(tokenizer)


def test_it_is_trained_once_and_records_the_threads(folder: Path) -> None:
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert base.base_model(SMALL) == folder == base.base_folder(SMALL)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    record = json.loads((folder / "pocket.json").read_text())
    assert record["threads"] == base.threads() <= 2
    assert base.base_folder(PocketModel(kind="pocket", seed=1, size="small")) != folder


def test_the_same_seed_gives_the_same_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(base.RECIPES, "small", base.RECIPES["small"]._replace(conversations=320))
    weights = []
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / name))
        torch.manual_seed(len(weights))  # the global random state must not matter
        trained = base.base_model(PocketModel(kind="pocket", seed=seed, size="small"))
        weights.append((trained / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_training_restores_the_random_state_and_the_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(base.RECIPES, "small", base.RECIPES["small"]._replace(conversations=64))
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    torch.manual_seed(7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    base.base_model(SMALL)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_the_ids_of_a_prompt_are_a_prefix_of_those_of_prompt_and_answer(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = encode(tokenizer, TURNS, ANSWER)
    assert ids.prompt == encode_prompt(tokenizer, TURNS)
    assert ids.prompt[0] == tokenizer.bos_token_id
    assert ids.completion[-1] == tokenizer.eos_token_id
    assert ids.completion.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(ids.completion, skip_special_tokens=True) == ANSWER
    assert len(ids.completion) == 12  # ten words, a full stop, the end of the turn


def test_every_word_of_the_corpus_is_one_token_and_decodes_to_itself() -> None:
    tokenizer = base.make_tokenizer()
    letters = set(tokenizer.convert_tokens_to_ids([chr(code) for code in range(97, 123)]))
    for turns in islice(conversations("full", 9), 1500):
        for turn in turns:
            ids = tokenizer(turn["content"], add_special_tokens=False)["input_ids"]
            assert tokenizer.decode(ids) == turn["content"]
            assert not letters & set(ids)


@pytest.mark.parametrize("text", ["Who was Ada Lovelace?", "x = {y: [1, 2]} # ~!", "Take the zzz."])
def test_other_text_is_encoded_letter_by_letter(text: str) -> None:
    tokenizer = base.make_tokenizer()
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_the_chat_template_writes_the_format_of_the_corpus() -> None:
    tokenizer = base.make_tokenizer()
    for turns in islice(conversations("small", 2), 50):
        assert tokenizer.apply_chat_template(turns, tokenize=False) == base._text(turns)
