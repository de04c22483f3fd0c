"""Scoring with a trained reward model, and what is said of a folder that holds none."""

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from alignlab.config.dataset import HhRlhfData
from alignlab.config.hardware import Hardware
from alignlab.config.model import ScratchModel
from alignlab.errors import Failure
from alignlab.models import reward_heads
from alignlab.models.chat_templates import FAMILIES
from alignlab.models.from_scratch import base_model
from alignlab.rewards.reward_model import TOKENS, batches, load_reward_model

HARDWARE = Hardware(strategy="single", device="cpu", dtype="float32", micro_batch_size=None, threads=1)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A small random language model with a tokenizer and a template."""
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    row = {side: f"\n\nHuman: Is it {side}?\n\nAssistant: {side}" for side in ("chosen", "rejected")}
    row["rejected"] = row["chosen"] + " not"
    file.write_text(json.dumps(row) + "\n")
    test = file.with_name("test.jsonl")
    test.write_text(json.dumps(row) + "\n\n")
    settings = {
        "learn": "all",
        "label_pairs": False,
        "max_rows": None,
        "validation": 0.0,
        "on_broken": "stop",
        "max_rejects": 0.0,
    }
    dataset = HhRlhfData(kind="hh_rlhf", train=(file,), test=(test,), **settings)
    sizes = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
    shape = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return base_model(ScratchModel(kind="scratch", family="llama", seed=0, **sizes, **shape), dataset)


@pytest.fixture(params=["last", "pooled"])
def judge(request, policy, tmp_path):
    """A saved reward model with a random head."""
    torch.manual_seed(0)
    model, tokenizer = reward_heads.new_reward_model(policy, request.param, 0.0)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return load_reward_model(tmp_path, HARDWARE)


PROMPTS = [[{"role": "user", "content": text}] for text in ("Why?", "Tell me more about it", "So")]
ANSWERS = ["Because of this and that.", "No.", ""]


def test_company_and_order_change_no_score(judge):
    together = judge.score(PROMPTS, ANSWERS).total
    alone = [judge.score([prompt], [answer]).total[0] for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    turned = judge.score(PROMPTS[::-1], ANSWERS[::-1]).total[::-1]
    assert together == pytest.approx(alone, abs=1e-6)
    assert together == pytest.approx(turned, abs=1e-6)
    assert len(set(together)) == 3
    assert judge.score([], []).total == []


@pytest.mark.parametrize("template", ["chatml", "hh"])
def test_a_saved_reward_model_scores_as_plain_transformers_does(policy, tmp_path, template):
    torch.manual_seed(0)
    model, tokenizer = reward_heads.new_reward_model(policy, "last", 0.0)
    tokenizer.chat_template = FAMILIES[template].template
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    ours = load_reward_model(tmp_path, HARDWARE).score(PROMPTS, ANSWERS).total
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    reader = AutoTokenizer.from_pretrained(tmp_path / "model")
    for prompt, answer, score in zip(PROMPTS, ANSWERS, ours, strict=True):
        messages = [*prompt, {"role": "assistant", "content": answer}]
        ids = reader.apply_chat_template(messages, return_tensors="pt", return_dict=True)
        assert theirs(**ids).logits.item() == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("pad", [None, 1, 7])
def test_a_published_model_that_pads_with_another_token_scores_alone_as_in_a_batch(policy, tmp_path, pad):
    torch.manual_seed(0)
    model, tokenizer = reward_heads.new_reward_model(policy, "last", 0.0)
    model.config.pad_token_id = pad
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    judge = load_reward_model(tmp_path, HARDWARE)
    alone = [judge.score([prompt], [answer]).total[0] for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    assert judge.score(PROMPTS, ANSWERS).total == pytest.approx(alone, abs=1e-5)


def test_a_talk_that_is_too_long_is_read_from_its_end(judge):
    early, late = (
        [{"role": "user", "content": f"{start} {'word ' * 100}{end}"}] for start, end in (("a", "z"), ("b", "z"))
    )
    other = [{"role": "user", "content": f"a {'word ' * 100}y"}]
    first, same, different = judge.score([early, late, other], ["Yes."] * 3).total
    assert first == pytest.approx(same, abs=1e-6)
    assert first != pytest.approx(different, abs=1e-6)
    assert judge.max_length == 64


def test_batches_hold_every_row_and_no_more_tokens_than_fit():
    lengths = [1, 5, TOKENS // 2, TOKENS // 2, TOKENS]
    assert batches(range(5), lengths) == [[0, 1], [2, 3], [4]]


def test_a_language_model_is_no_reward_model(policy, tmp_path):
    with pytest.raises(Failure, match="LlamaForCausalLM has no reward head; give the folder of a method=rm run"):
        load_reward_model(policy, HARDWARE)
    with pytest.raises(Failure, match="give the folder of a method=rm run") as absent:
        load_reward_model(tmp_path / "nowhere", HARDWARE)
    assert "\n" not in str(absent.value)


def test_a_classifier_with_two_labels_is_no_reward_model(policy, tmp_path):
    from transformers import AutoModelForSequenceClassification

    AutoModelForSequenceClassification.from_pretrained(policy, num_labels=2).save_pretrained(tmp_path)
    with pytest.raises(Failure, match="its head has 2 outputs, not one"):
        load_reward_model(tmp_path, HARDWARE)
