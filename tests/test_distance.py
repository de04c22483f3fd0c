"""How far a policy is from where it started, by hand; and the table of completions with what each was worth."""

import pytest
import torch
from command import config
from tiny import ask, tiny_model, tiny_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from alignlab.chat import encode, encode_prompt
from alignlab.evaluation import Evaluated, values_by_id
from alignlab.evaluation.measures.kl import distances
from alignlab.evaluation.metrics import Record, mean, score_records
from alignlab.evaluation.protocol import Context
from alignlab.evaluation.replies import Item, Reply
from alignlab.evaluation.subjects import LanguageModel
from alignlab.models.sampling import Completion
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


def reply(name, prompt, text, finished=True):
    ids = encode(tiny_tokenizer(), prompt, text).completion
    completion = Completion(text, finished, tuple(ids if finished else ids[:-1]))
    return Reply(Item(name, prompt), (completion,))


REPLIES = [
    reply("a", ask("how do i bake bread"), "mix flour and water"),
    reply("b", ask("why"), "no", finished=False),
    reply("c", ask("stop"), "", finished=False),
]


def distance(policy, reference, replies, settings):
    models = [LanguageModel(folder, settings.hardware) for folder in (policy, reference)]
    return distances(*models, replies, Context(settings, models[0]).sampling, 0)


def by_hand(reply):
    """The same, one answer at a time, with no padding: sum over tokens and vocabulary of p (log p - log q)."""
    row, completion = encode(tiny_tokenizer(), reply.item.prompt, ""), list(reply.completions[0].tokens)
    logps = []
    for seed in range(2):
        with torch.no_grad():
            whole = tiny_model(seed)(torch.tensor([row.prompt + completion])).logits[0].double() / 0.5
        whole[:, [0, 1]] = -torch.inf  # padding and the beginning are never drawn; what ends an answer is
        logps.append(whole.log_softmax(-1)[len(row.prompt) - 1 : len(row.prompt) + len(completion) - 1])
    p, q = logps
    return torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum().item()


def test_the_distance_by_hand(two):
    values = distance(*two, REPLIES, config(*SETTINGS))
    assert values[:2] == pytest.approx([by_hand(one) for one in REPLIES[:2]], rel=1e-5)
    assert values[0] > values[1] > 0
    assert values[2] == 0  # nothing was said


def test_a_model_is_no_distance_from_itself(two):
    assert distance(two[0], two[0], REPLIES, config(*SETTINGS)) == [0.0, 0.0, 0.0]


def test_the_tokens_that_were_drawn_are_measured_and_not_those_of_their_text(two):
    """Two spellings of one text: a sampled token that the tokenizer would not write."""
    odd = REPLIES[0]._replace(
        completions=(Completion("mix flour and water", True, (6, 3, 3, 2)),), item=Item("e", ask("why"))
    )
    assert distance(*two, [odd], config(*SETTINGS)) == pytest.approx([by_hand(odd)], rel=1e-5)


LONG = reply("d", ask(*["bake"] * 30, "why"), "mix flour")


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
    values = distance(tmp_path / "policy", tmp_path / "reference", [LONG], settings)
    row = encode(tiny_tokenizer(), LONG.item.prompt, LONG.text)
    assert len(row.prompt) > 24
    prompt, logps = encode_prompt(tiny_tokenizer(), cut_turns(tiny_tokenizer(), LONG.item.prompt, 16)), []
    assert len(prompt) == 16
    for model in models:
        with torch.no_grad():
            logits = model(torch.tensor([prompt + row.completion])).logits[0, 15:-1].double() / 0.5
        logits[:, [0, 1]] = -torch.inf
        logps.append(logits.log_softmax(-1))
    p, q = logps
    expected = torch.where(p > -torch.inf, p.exp() * (p - q), 0.0).sum().item()
    assert values == pytest.approx([expected], rel=1e-4)
    assert expected > 0


def test_the_table_shows_so_many_of_each_kind_with_what_they_were_worth():
    records = [
        Record("1", "1", "how_to", {"gold/score": 1.0}),
        Record("2", "2", "how_to", {"gold/score": 0.0}),
        Record("3", "3", "fact", {"gold/score": 0.5, "gold/honest": 1.0, "tokens": 7.0}),
    ]
    metrics = (mean("gold/score", by_kind=True), mean("gold/honest"), mean("none"))
    scores = score_records(metrics, records)
    assert {*scores} == {"gold/score", "gold/score/how_to", "gold/score/fact", "gold/honest"}
    values = values_by_id(Evaluated(scores, {"gold": records}, []))
    assert values["1"] == {"gold/score": 1.0}
    assert values["3"] == {"gold/score": 0.5, "gold/honest": 1.0}  # a column that is no measure is left out
    samples = [
        {
            "id": one,
            "kind": kind,
            "prompt": ask(f"why {one}"),
            **{model: {"completion": text} for model, text in (("before", "x"), ("previous", "y"), ("after", "z"))},
            "scores": values[one],
        }
        for one, kind in zip("123", ("how_to", "how_to", "fact"), strict=True)
    ]
    columns, rows = completions_table(samples, 1)
    assert columns == ["id", "kind", "prompt", "before", "previous", "after", "gold/score", "gold/honest"]
    assert rows == [["1", "how_to", "why 1", "x", "y", "z", 1.0, None], ["3", "fact", "why 3", "x", "y", "z", 0.5, 1.0]]
