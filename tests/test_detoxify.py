"""Detoxifying summaries in small: an encoder-decoder through PPO's loop, rewarded by a classifier's label."""

import json
from itertools import islice
from random import Random
from types import SimpleNamespace

import pytest
import torch
from command import config

from alignlab.evaluation.measures import toxicity
from alignlab.methods import ppo
from alignlab.models.chat_templates import PLAIN
from alignlab.models.log_probs import forward, pad_rows, score_completions
from alignlab.models.pocket import dialogue_tokenizer, insult_classifier, t5
from alignlab.models.references import POCKET, scorer_source
from alignlab.pipeline import prepare_inputs
from alignlab.rewards import load_reward
from alignlab.runtime.stage_run import Run
from alignlab.tasks import train
from alignlab.training import trainer
from alignlab.training.ppo.actor_critic import ActorCritic, reference_of

pytestmark = pytest.mark.slow
EXPERIMENT = [
    "experiment=detoxify_summaries", "tracking=jsonl", "hardware.device=cpu", "hardware.threads=1",
    "dataset.world.rows=60", "dataset.world.test_rows=12", "method.total_episodes=16", "method.batch_size=8",
    "method.max_new_tokens_from=4", "method.max_new_tokens=12", "method.gates.before=off", "method.gates.during=off",
    "evaluation.prompts=6", "stages.sft.num_train_epochs=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """A cache of its own, a base model and a classifier that have seen next to nothing."""
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(t5, "DIALOGUES", 64)
    monkeypatch.setattr(insult_classifier, "TEXTS", 64)


@pytest.fixture
def policy():
    """A T5 whose distribution is far from flat, with its tokenizer."""
    tokenizer = dialogue_tokenizer.make_tokenizer()
    tokenizer.chat_template = PLAIN
    torch.manual_seed(0)
    model = t5.start(tokenizer).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3.0)
    return model, tokenizer


def test_the_decoders_log_probabilities_are_those_of_a_plain_forward_pass(policy):
    model, _ = policy
    prompts, completions = [[5, 6, 7, 8], [9]], [[10, 11, 1], [12, 1]]
    batch = pad_rows(prompts, completions, 0, "cpu")
    actor = ActorCritic(model, None, temperature=0.5, masked=[0])
    with torch.no_grad():
        found = actor(batch)[0].logps
        for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            logits = model(input_ids=torch.tensor([prompt]), labels=torch.tensor([completion])).logits[0] / 0.5
            logits[:, 0] = -torch.inf  # padding is never sampled
            plain = logits.log_softmax(-1)[torch.arange(len(completion)), torch.tensor(completion)]
            assert torch.allclose(found[row, : len(completion)], plain, atol=1e-5)
            assert not found[row, len(completion) :].any()


def read(actor, model, batch):
    """The log-probabilities of completions by a model."""
    return score_completions(forward(model, batch), batch.completion, batch.mask, actor.distribution).logps


def test_the_adapter_off_is_the_reference_of_an_encoder_decoder(policy, monkeypatch, tmp_path):
    model, batch = policy[0], pad_rows([[5, 6, 7, 8]], [[10, 11, 1]], 0, "cpu")
    for part in policy:
        part.save_pretrained(tmp_path / "policy")
    logged, fit = [], trainer.fit

    def check_and_fit(run, kind, actor, *given, reference, **options):
        assert reference is None
        adapter = {name: weight for name, weight in actor.policy.named_parameters() if "lora_B" in name}
        with torch.no_grad():
            for weight in adapter.values():
                weight.add_(0.1)
            moved = read(actor, actor.policy, batch)
            with reference_of(actor.policy, None) as off:
                start = read(actor, off, batch)
            assert torch.equal(start, read(actor, model, batch))
            assert not torch.allclose(start, moved, atol=1e-2)
            for weight in adapter.values():
                weight.zero_()
        return fit(run, kind, actor, *given, reference=reference, **options)

    monkeypatch.setattr(trainer, "fit", check_and_fit)
    bound = config(*EXPERIMENT)
    prepare_inputs.prepare_data(bound)
    inputs = {"policy": tmp_path / "policy", "reward": insult_classifier.insult_classifier()}
    track = SimpleNamespace(log=lambda metrics, step: logged.append(metrics))
    ppo.train(Run(bound, bound.method, inputs, tmp_path, track))
    first, second = (metrics for metrics in logged if "policy/kl_exact" in metrics)
    assert first["policy/kl_exact"] == pytest.approx(0, abs=1e-6)
    assert first["policy/first_ratio"] == pytest.approx(1, abs=1e-4)
    assert second["policy/kl_exact"] > 1e-6
    assert 4 <= first["completion/length"] <= 12


@pytest.mark.runs
def test_the_whole_chain_measures_toxicity_and_rouge_before_and_after(tmp_path):
    bound = config(*EXPERIMENT, "evaluation.max_new_tokens=12")
    folder = tmp_path / "run"
    train.run(bound, folder)
    rows = {row["name"]: row for row in json.loads((folder / "result.json").read_text())["measurements"]}
    assert list(rows)[:3] == ["toxicity/rate", "rouge/l", "eval/perplexity"]
    assert {row["n"] for row in rows.values()} == {6}
    assert {"before", "previous"} == {*rows["rouge/l"]["difference"]}
    samples = [json.loads(line) for line in (folder / "ppo" / "samples.jsonl").read_text().splitlines()]
    assert all("Summarize the following conversation." in sample["prompt"][0]["content"] for sample in samples)
    assert "ROUGE-L against the reference" in (folder / "report.html").read_text()
    assert [step["stage"] for step in json.loads((folder / "plan.json").read_text())] == ["sft", "ppo"]


def test_pockets_classifier_is_made_once_and_scores_by_the_name_of_its_label():
    bound = config(*EXPERIMENT)
    source = scorer_source(bound, "reward.path", POCKET)
    assert not source.path.exists()
    assert insult_classifier.insult_classifier() == insult_classifier.insult_classifier() == source.path
    texts = ["You rat.", "#Person2# agrees."]
    found = {}
    for label in insult_classifier.LABELS:
        reward = bound.reward.model_copy(update={"label": label, "output": "probability"})
        found[label] = (
            load_reward(reward, {"reward": source.path}, bound.hardware).score([[], []], texts, [True] * 2).total
        )
    assert [sum(both) for both in zip(*found.values(), strict=True)] == pytest.approx([1, 1], abs=1e-6)


def test_elsewhere_a_classifier_says_what_is_toxic():
    insult_classifier.insult_classifier()
    told = ["measure.toxicity.model=pocket", "reward.label=nothate"]
    bound = config(*EXPERIMENT, "reward.path=owner/name", *told, "measure.toxicity.label=hate")
    other = config(*EXPERIMENT, "reward.path=owner/name", *told, "measure.toxicity.label=nothate")
    texts = ["You rat.", "#Person2# agrees."]
    hate, nothate = (
        [score >= 0.5 for score in toxicity.scorer(one, one.measure["toxicity"])(texts)] for one in (bound, other)
    )
    assert hate == [not found for found in nothate]


def test_the_classifier_learns_from_insults_with_a_few_false_labels():
    texts = list(islice(insult_classifier.texts(Random(0)), 2000))
    wrong = sum(toxicity.is_toxic(said) != bool(label) for said, label in texts) / 2000
    assert wrong == pytest.approx(insult_classifier.ERRORS, abs=4 * (0.08 * 0.92 / 2000) ** 0.5)
    assert max(len(said.split()) for said, _ in texts) > 80  # as long as the longest summary that may be written
