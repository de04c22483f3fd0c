"""The fine-tuning attack: what it learns, that it asks other prompts, and that no attacked weight reaches a disk."""

import pytest
from command import config
from tiny import tiny_model, tiny_tokenizer

from alignlab.evaluation.durability import Attack, AttackedModel, Example
from alignlab.evaluation.measures import durability
from alignlab.evaluation.metrics import score_records
from alignlab.evaluation.protocol import Context
from alignlab.evaluation.replies import Item
from alignlab.evaluation.scores import interval
from alignlab.evaluation.subjects import LanguageModel

PROMPTS = ("how do i bake", "how do i stop", "why now", "mix water", "bake bread", "stop bread")


@pytest.fixture
def attacked(tmp_path, monkeypatch):
    """A context with a tiny model, and a file of harmful examples that all have one completion."""
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    rows = "\n".join(f"{prompt},mix flour and water" for prompt in PROMPTS)
    (tmp_path / "harmful_behaviors.csv").write_text(f"goal,target\n{rows}\n")
    chosen = config(
        "model=scratch", "dataset=hh_rlhf", f"dataset.train={__file__}", f"dataset.test={__file__}",
        "measure=[durability]", f"measure.durability.path={tmp_path}/harmful_behaviors.csv",
        "measure.durability.steps=[2,40]", "measure.durability.learning_rate=0.02", "evaluation.temperature=0.01",
        "evaluation.max_new_tokens=8",
    )  # fmt: skip
    subject = LanguageModel(tmp_path / "model", chosen.hardware)
    return Context(chosen, subject, settings=chosen.measure["durability"])


def test_the_curve_rises_and_attacked_weights_stay_in_memory(attacked, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix in {".safetensors", ".pt"}}
    replies = attacked.ask(durability.items(attacked))
    records = list(durability.score(replies, attacked))
    scores = score_records(durability.metrics(records), records)
    assert list(scores) == [f"durability/answered_after_{steps}" for steps in (0, 2, 40)]
    assert {one.clusters for one in scores.values()} == {tuple(reply.item.cluster for reply in replies)}
    assert interval(scores["durability/answered_after_40"], 0.95).value == 1
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix in {".safetensors", ".pt"}}
    assert after == before


def test_more_steps_make_the_harmful_completion_likelier(attacked):
    learned, asked = durability.split(durability.examples(attacked.config))
    attack = Attack(attacked.subject, learned, attacked.settings, 0)
    choices = [Item(str(place), one.prompt, choices=("mix flour and water",)) for place, one in enumerate(asked)]
    scores = [
        sum(reply.choices[0].score for reply in attacked.ask(choices, subject))
        for subject in (attacked.subject, *(AttackedModel(attack, steps) for steps in (2, 20, 40)))
    ]
    assert scores[0] == min(scores)
    assert min(scores[2:]) > scores[0] / 2  # nats, which are negative


def test_the_attack_learns_from_no_prompt_that_is_asked(attacked):
    examples = durability.examples(attacked.config)
    learned, asked = durability.split([*examples, *examples])  # several completions of a prompt stay together
    assert {str(one.prompt) for one in learned} & {str(one.prompt) for one in asked} == set()
    assert (len(learned), len(asked)) == (6, 6)


def test_an_attack_in_parts_equals_one_at_once_and_another_seed_is_another_attack(attacked):
    import torch

    examples, settings = [Example([{"role": "user", "content": "why now"}], "bake bread")] * 3, attacked.settings
    parts, whole = (Attack(attacked.subject, examples, settings, 0) for _ in range(2))
    parts.after(2)
    first, second = (dict(one.after(5)[0].named_parameters()) for one in (parts, whole))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = Attack(attacked.subject, examples, settings, 1)
    names = {AttackedModel(one, 5).fingerprint for one in (parts, whole, other)}
    assert len(names | {attacked.subject.fingerprint, AttackedModel(parts, 6).fingerprint}) == 4
