"""Toxicity: Detoxify's checkpoints offline and without running their code, and RealToxicityPrompts' protocol."""

import json
import pickle

import pytest
import torch
from command import ROOT, config
from suites import context, items
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from alignlab.config import extensions
from alignlab.errors import Failure, Mistake
from alignlab.evaluation.detoxify_checkpoint import load_detoxify
from alignlab.evaluation.measures.toxicity import scorer
from alignlab.evaluation.metrics import score_records
from alignlab.evaluation.replies import Reply
from alignlab.evaluation.scores import interval
from alignlab.models.sampling import Completion

HARDWARE = config().hardware
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "you", "are", "kind", "a", "rat"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A random classifier in Detoxify's format, with its configuration and tokenizer beside it."""
    folder = tmp_path_factory.mktemp("detoxify")
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=512, num_labels=2, initializer_range=0.5,
    )  # fmt: skip
    shape.save_pretrained(folder / "bert")
    BertTokenizerFast(vocab={word: place for place, word in enumerate(WORDS)}).save_pretrained(folder / "bert")
    arguments = {"num_classes": 2, "model_type": "bert", "model_name": "BertForSequenceClassification"}
    arguments["tokenizer_name"] = "BertTokenizerFast"
    settings = {"arch": {"args": arguments}, "dataset": {"args": {"classes": ["toxic", "insult"]}}}
    weights = BertForSequenceClassification(shape).state_dict()
    torch.save({"config": settings, "state_dict": weights}, folder / "original.ckpt")
    return folder / "original.ckpt"


def test_scores_are_those_of_detoxify_itself(checkpoint, monkeypatch):
    import detoxify

    content = torch.load(checkpoint, weights_only=True)
    content["config"]["arch"]["args"]["model_type"] = str(checkpoint.parent / "bert")
    absolute = checkpoint.with_name("absolute.ckpt")
    torch.save(content, absolute)
    texts = ["you are a rat", "you are kind", "kind"]
    expected = detoxify.Detoxify(checkpoint=absolute).predict(texts)
    settings = config("measure=[toxicity]", f"measure.toxicity.detoxify={checkpoint}")
    toxic = scorer(settings, settings.measure["toxicity"])(texts)
    assert toxic == pytest.approx(expected["toxicity"], abs=1e-6)
    assert load_detoxify(str(absolute), "insult", HARDWARE).score([()] * 3, texts, [True] * 3).total == pytest.approx(
        expected["insult"], abs=1e-6
    )


def test_detoxify_by_name_comes_from_torchs_own_cache(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "toxic_original-c1212f89.ckpt").write_bytes(checkpoint.read_bytes())
    (tmp_path / "checkpoints" / "bert").symlink_to(checkpoint.parent / "bert")
    assert load_detoxify("original", "toxicity", HARDWARE).probability
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: (_ for _ in ()).throw(OSError("no net")))
    with pytest.raises(Failure, match=r"toxic_debiased-c7548aa0\.ckpt cannot be downloaded \(no net\); put it at"):
        load_detoxify("unbiased", "toxicity", HARDWARE)


def test_a_long_text_is_cut_and_batches_are_bounded(checkpoint, monkeypatch):
    judge = load_detoxify(str(checkpoint), "toxicity", HARDWARE)
    sizes = []
    forward = type(judge).forward

    def counted(self, texts, pairs):
        sizes.append(sum(map(len, texts)))
        return forward(self, texts, pairs)

    monkeypatch.setattr(type(judge), "forward", counted)
    texts = ["you are a rat " * 500, *["you are kind"] * 3000]  # 2,000 tokens
    scores = judge.score([()] * len(texts), texts, [True] * len(texts)).total
    cut = judge.score([()], ["you are a rat " * 127 + "you are"], [True]).total  # 510 tokens and two special ones
    assert scores[0] == pytest.approx(cut[0], abs=1e-6)
    assert len({round(score, 5) for score in scores[1:]}) == 1
    assert max(sizes) <= 16384
    assert len(sizes) > 3


class Danger:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return (open, (str(self.file), "w"))


def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path):
    torch.save({"config": {}, "state_dict": Danger(tmp_path / "ran")}, tmp_path / "code.ckpt")
    with pytest.raises(Failure, match=r"code\.ckpt holds Python code or objects, which could run anything"):
        load_detoxify(str(tmp_path / "code.ckpt"), "toxicity", HARDWARE)
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Danger(tmp_path / "ran")))
    with pytest.raises(Failure, match=r"measure\.toxicity\.detoxify: .*plain\.ckpt"):
        load_detoxify(str(tmp_path / "plain.ckpt"), "toxicity", HARDWARE)
    assert not (tmp_path / "ran").exists()


def test_other_contents_labels_and_classes_are_named(checkpoint, tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(Failure, match=r"other\.ckpt is no checkpoint of Detoxify"):
        load_detoxify(str(tmp_path / "other.ckpt"), "toxicity", HARDWARE)
    with pytest.raises(Failure, match=r"has no label 'threat'; there is toxicity, insult"):
        load_detoxify(str(checkpoint), "threat", HARDWARE)
    content = torch.load(checkpoint, weights_only=True)
    content["config"]["arch"]["args"]["tokenizer_name"] = "pipeline"
    torch.save(content, tmp_path / "class.ckpt")
    with pytest.raises(Failure, match="names the classes BertForSequenceClassification and pipeline"):
        load_detoxify(str(tmp_path / "class.ckpt"), "toxicity", HARDWARE)
    with pytest.raises(Mistake, match=r"measure\.toxicity\.model: detoxify is set as well"):
        config("measure.toxicity.detoxify=original", "measure.toxicity.model=owner/name", "measure.toxicity.label=x")


def test_realtoxicityprompts_by_hand(tmp_path, monkeypatch):
    rows = [{"prompt": {"text": f"text {place}", "toxicity": toxicity}} for place, toxicity in enumerate((0.7, 0.1))]
    (tmp_path / "rtp.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = [f"measure.realtoxicityprompts.path={tmp_path}/rtp.jsonl", "measure.realtoxicityprompts.samples=3"]
    own += ["measure.realtoxicityprompts.detoxify=original", f"evaluation.data={ROOT}"]
    module = extensions.load("measures", "realtoxicityprompts")
    asked = items("realtoxicityprompts", *own)
    assert {item.prompt: (item.kind, item.samples, item.max_new_tokens) for item in asked} == {
        "text 0": ("toxic", 3, 20), "text 1": ("nontoxic", 3, 20),
    }  # fmt: skip
    monkeypatch.setattr(module, "scorer", lambda *_: lambda texts: [float(text) for text in texts])
    said = {"toxic": ("0.1", "0.9", "0.2"), "nontoxic": ("0.1", "0.3", "0.2")}
    replies = [Reply(item, tuple(Completion(text, True, ()) for text in said[item.kind])) for item in asked]
    records = list(module.score(replies, context("realtoxicityprompts", *own)))
    found = {name: interval(one, 0.95).value for name, one in score_records(module.METRICS, records).items()}
    assert found["realtoxicityprompts/expected_maximum"] == pytest.approx(0.6)
    assert found["realtoxicityprompts/expected_maximum/nontoxic"] == pytest.approx(0.3)
    assert found["realtoxicityprompts/any"] == 0.5
    assert found["realtoxicityprompts/score"] == pytest.approx(0.3)
    assert {record.shown for record in records} == {"0.9", "0.3"}
