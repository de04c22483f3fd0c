"""How far a policy is from where it started, by hand; and the table of completions with what each was worth."""

import numpy as np
import pytest
import torch
from command import config
from tiny import ask, tiny_model, tiny_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from alignlab.chat import encode, encode_prompt
from alignlab.evaluation import Sample
from alignlab.evaluation.measures.kl import distance
from alignlab.evaluation.scores import Scores, scores_of
from alignlab.models.truncation import cut_turns
from alignlab.pipeline.measure_stage import completions_table


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folders = [tmp_path_factory.mktemp(name) for name in ("policy", "reference")]
    for seed, folder in enumerate(folders):
        tiny_model(seed).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    return folders


SETTINGS = ["hardware.device=cpu", "evaluation.temperature=0.5"]
SAMPLES = [
    Sample("a", "", ask("how do i bake bread"), "mix flour and water", True, 5),
    Sample("b", "", ask("why"), "no", False, 1),
    Sample("c", "", ask("stop"), "", False, 0),
]


def by_hand(folders, sample):
    """The same, one answer at a time, with no padding: sum over tokens and vocabulary of p (log p - log q)."""
    row = encode(tiny_tokenizer(), sample.prompt, sample.completion)
    completion = row.completion if sample.finished else row.completion[:-1]
    logps = []
    for seed in range(2):
        with torch.no_grad():
            whole = tiny_model(seed)(torch.tensor([row.prompt + completion])).logits[0].double() / 0.5
        whole[:, [0, 1]] = -torch.inf  # padding and the beginning are never drawn; what ends an answer is
        logps.append(whole.log_softmax(-1)[len(row.prompt) - 1 : len(row.prompt) + len(completion) - 1])
    p, q = logps
    return torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum().item()


def test_the_distance_by_hand(two):
    found = distance(*two, SAMPLES, config(*SETTINGS))
    assert found.ids == ("a", "b", "c")
    assert found.values[:2] == pytest.approx([by_hand(two, sample) for sample in SAMPLES[:2]], rel=1e-5)
    assert found.values[0] > found.values[1] > 0
    assert found.values[2] == 0  # nothing was said


def test_a_model_is_no_distance_from_itself(two):
    assert distance(two[0], two[0], SAMPLES, config(*SETTINGS)).values.tolist() == [0.0, 0.0, 0.0]


LONG = Sample("d", "", ask(*["bake"] * 30, "why"), "mix flour", True, 3)


def test_a_prompt_longer_than_the_context_is_cut_as_sampling_cuts_it(tmp_path):
    """GPT-2's positions are a table of 24 rows, beyond which there is none."""
    shape = {"vocab_size": 20, "n_positions": 24, "n_embd": 16, "n_layer": 1, "n_head": 2}
    models = []
    for name in ("policy", "reference"):
        torch.manual_seed(len(name))
        models.append(GPT2LMHeadModel(GPT2Config(**shape, pad_token_id=0, bos_token_id=1, eos_token_id=2)).eval())
        models[-1].save_pretrained(tmp_path / name)
        tiny_tokenizer().save_pretrained(tmp_path / name)
    settings = config(*SETTINGS, "evaluation.max_new_tokens=8")
    found = distance(tmp_path / "policy", tmp_path / "reference", [LONG], settings)
    row = encode(tiny_tokenizer(), LONG.prompt, LONG.completion)
    assert len(row.prompt) > 24
    prompt, logps = encode_prompt(tiny_tokenizer(), cut_turns(tiny_tokenizer(), LONG.prompt, 16)), []
    assert len(prompt) == 16
    for model in models:
        with torch.no_grad():
            logits = model(torch.tensor([prompt + row.completion])).logits[0, 15:-1].double() / 0.5
        logits[:, [0, 1]] = -torch.inf
        logps.append(logits.log_softmax(-1))
    p, q = logps
    by_hand = torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum().item()
    assert found.values.tolist() == pytest.approx([by_hand], rel=1e-4)
    assert by_hand > 0


def test_the_table_shows_so_many_of_each_kind_with_what_they_were_worth():
    ids = ("1", "2", "3")
    scores = {
        "gold/score": Scores("gold/score", np.array([1.0, 0.0, 0.5]), ids, False, "higher"),
        "gold/score/fact": Scores("gold/score/fact", np.array([0.5]), ids[2:], False, "higher"),
        "eval/perplexity": Scores("eval/perplexity", np.array([1.0]), ids[:1], False, "lower", exponential=True),
        "gold/honest": Scores("gold/honest", np.array([1.0]), ids[2:], True, "higher"),
    }
    assert scores_of("1", scores) == {"gold/score": 1.0}
    assert scores_of("3", scores) == {"gold/score": 0.5, "gold/score/fact": 0.5, "gold/honest": 1.0}
    samples = [
        {
            "kind": kind,
            "prompt": ask(f"why {one}"),
            **{model: {"completion": text} for model, text in (("before", "x"), ("previous", "y"), ("after", "z"))},
            "scores": scores_of(one, scores),
        }
        for one, kind in zip(ids, ("how_to", "how_to", "fact"), strict=True)
    ]
    columns, rows = completions_table(samples, 1)
    assert columns == ["kind", "prompt", "before", "previous", "after", "gold/score", "gold/honest"]
    assert rows == [["how_to", "why 1", "x", "y", "z", 1.0, None], ["fact", "why 3", "x", "y", "z", 0.5, 1.0]]
