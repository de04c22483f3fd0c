"""Reward models trained end to end, on pairs that a rule tells apart."""

import json
from types import SimpleNamespace

import pytest
import torch
import yaml
from command import ROOT
from command import config as composed
from tiny import ask

from alignlab import data
from alignlab.config.dataset import HhRlhfData
from alignlab.config.evaluation import Evaluation, MeasureSettings
from alignlab.config.hardware import Hardware
from alignlab.config.model import Adapter, ScratchModel
from alignlab.evaluation import evaluate, measurements
from alignlab.evaluation.protocol import ChosenMeasurement, Context, FinishedStage
from alignlab.evaluation.replies import Item
from alignlab.evaluation.subjects import RewardModelSubject
from alignlab.methods import rm
from alignlab.models.from_scratch import base_model
from alignlab.rewards import load_reward_model
from alignlab.runtime.stage_run import Run

pytestmark = pytest.mark.slow

SHAPE = {"vocab_size": 300, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 128}
HARDWARE = Hardware(strategy="single", device="cpu", dtype="float32", micro_batch_size=None, threads=1)
EVALUATION = Evaluation(
    **{
        **yaml.safe_load((ROOT / "conf/evaluation/standard.yaml").read_text()),
        "max_new_tokens": 16,
    }
)


def files(folder, name, numbers):
    """Pairs in which the right answer names the question's number and the wrong one does not."""
    path = folder / f"{name}.jsonl"
    start = "\n\nHuman: What is {0}?\n\nAssistant: "
    rows = [{"chosen": f"{start}It is {{0}}.", "rejected": f"{start}No idea about that."} for _ in numbers]
    path.write_text(
        "".join(json.dumps(row).replace("{0}", str(n)) + "\n" for row, n in zip(rows, numbers, strict=True))
    )
    return (path,)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A data set of 160 pairs and a small random model."""
    folder = tmp_path_factory.mktemp("pairs")
    settings = {
        "learn": "all",
        "label_pairs": False,
        "max_rows": None,
        "validation": 0.2,
        "on_broken": "stop",
        "max_rejects": 0.0,
    }
    paths = {"train": files(folder, "train", range(160)), "test": files(folder, "test", range(500, 540))}
    dataset = HhRlhfData(kind="hh_rlhf", **paths, **settings)
    model = ScratchModel(kind="scratch", family="llama", seed=0, **SHAPE, **HEADS)
    return SimpleNamespace(dataset=dataset, model=model, policy=base_model(model, dataset))


def settings(**changed):
    shared, own = (yaml.safe_load((ROOT / f"conf/method/{name}.yaml").read_text()) for name in ("_training", "rm"))
    own.pop("defaults")
    small = {
        "batch_size": 8,
        "max_length": 64,
        "learning_rate": 1e-3,
        "num_train_epochs": 1,
        "head": "pooled",
        "save_steps": None,
        "eval_steps": None,
    }
    return rm.Config(**{**shared, **own, **small, **changed})


def trained(world, folder, track=None, hardware=HARDWARE, adapter=None, **changed):
    method = settings(**changed)
    model = world.model.model_copy(update={"adapter": adapter})
    config = SimpleNamespace(
        model=model,
        dataset=world.dataset,
        hardware=hardware,
        seed=0,
        method=method,
        evaluation=EVALUATION,
        measure={"pairs": MeasureSettings()},
        origins={},
    )
    track = track or SimpleNamespace(log=lambda metrics, step: None)
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    rm.train(Run(config, method, {"policy": world.policy}, folder, track))
    return config


def weights(folder):
    return load_reward_model(folder, HARDWARE).model.state_dict()


def same(first, second, tolerance):
    return first.keys() == second.keys() and all(
        torch.allclose(first[n], second[n], atol=tolerance, rtol=0) for n in first
    )


def measured(config, folder):
    stage = FinishedStage(config.method, "reward_model", folder, folder, {})
    evaluated = evaluate(Context(config, RewardModelSubject(folder / "model", HARDWARE), None, stage), "stage")
    return {row["name"]: row for row in measurements(evaluated.scores, None, None, config.evaluation)}


@pytest.mark.parametrize("head", ["last", "pooled"])
def test_a_rule_is_learned_and_reported(world, tmp_path, head):
    config = trained(world, tmp_path, head=head, num_train_epochs=4, learning_rate=3e-3)
    rows = measured(config, tmp_path)
    assert rows["reward/accuracy"]["value"] >= 0.95
    assert rows["reward/accuracy"]["n"] == 40
    assert rows["baseline/bag_of_words"]["value"] == 1.0
    assert rows["baseline/length"]["value"] == 1.0  # the right answer is always the shorter one
    assert rows["reward/prefers_longer"]["value"] <= 0.05
    assert rows["pairs/longer_chosen"]["value"] == 0.0
    first = json.loads((tmp_path / "pair_scores.jsonl").read_text().splitlines()[0])
    assert first["chosen_reward"] > first["rejected_reward"]


def test_what_is_saved_scores_as_what_was_trained(world, tmp_path, monkeypatch):
    from alignlab.models import load, prompt_layout, reward_heads

    kept = {}
    save = load.save
    monkeypatch.setattr(load, "save", lambda model, *rest: (save(model, *rest), kept.update(model=model.eval())))
    trained(world, tmp_path)
    loaded = load_reward_model(tmp_path, HARDWARE)
    assert loaded.model.config.prompt_share == 0.25
    rows = prompt_layout.pack([[5, 6, 7], [8]], [[[9, 2]], [[10, 11, 2]]], 0)
    before, after = (reward_heads.scores(model, rows) for model in (kept["model"], loaded.model))
    assert torch.allclose(before, after, rtol=0, atol=1e-6)  # products depend on where in memory the weights lie
    assert loaded.max_length == 64


def test_micro_batches_give_the_same_step(world, tmp_path):
    micro_batches = HARDWARE.model_copy(update={"micro_batch_size": 4})
    trained(world, tmp_path / "whole", max_steps=1, learning_rate=1e-2, warmup_steps=0.0)
    trained(world, tmp_path / "micro", hardware=micro_batches, max_steps=1, learning_rate=1e-2, warmup_steps=0.0)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "micro"), 1e-5)


class Stopped(Exception):
    """Someone pulled the plug."""


def test_an_interrupted_stage_ends_as_if_nothing_had_happened(world, tmp_path):
    def pull(metrics, step):
        if step >= 10:
            raise Stopped

    often = {"save_steps": 4, "logging_steps": 1, "dropout": 0.1, "num_train_epochs": 2, "max_steps": 24}
    with pytest.raises(Stopped):
        trained(world, tmp_path / "cut", SimpleNamespace(log=pull), **often)
    assert (tmp_path / "cut" / "checkpoints" / "checkpoint-8").exists()
    trained(world, tmp_path / "cut", **often)
    trained(world, tmp_path / "whole", **often)
    assert same(weights(tmp_path / "cut"), weights(tmp_path / "whole"), 0.0)


@pytest.mark.parametrize("head", ["last", "pooled"])
def test_low_rank_adapters_train_the_head_too(world, tmp_path, head):
    adapter = Adapter(r=2, lora_alpha=4, lora_dropout=0.0, target_modules="all-linear")
    trained(world, tmp_path, adapter=adapter, head=head, max_steps=3)
    from alignlab.models import reward_heads

    torch.manual_seed(0)
    before = reward_heads.new_reward_model(world.policy, head, 0.0)[0].state_dict()
    after = weights(tmp_path)
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert "score.weight" in moved
    assert any(name.endswith("q_proj.weight") for name in moved)
    assert not any("embed_tokens" in name or "norm" in name for name in moved)


def test_the_loss_is_that_of_trl_on_the_same_pairs(world, tmp_path):
    from trl import RewardConfig, RewardTrainer
    from trl.trainer.reward_trainer import DataCollatorForPreference

    from alignlab.models import reward_heads
    from alignlab.training.reward_trainer import PairRewardTrainer

    model, tokenizer = reward_heads.new_reward_model(world.policy, "last", 0.0)
    pairs = [
        {"prompt_ids": [5, 6, 7], "completion_ids": [[8, 9, 2], [10, 2]]},
        {"prompt_ids": [3], "completion_ids": [[4, 2], [11, 12, 13, 2]]},
    ]
    plain = [
        {
            "chosen_ids": p["prompt_ids"] + p["completion_ids"][0],
            "rejected_ids": p["prompt_ids"] + p["completion_ids"][1],
        }
        for p in pairs
    ]
    arguments = RewardConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", center_rewards_coefficient=0.5
    )
    rows = data.view(world.dataset, "pairs", "train")
    ours = PairRewardTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    mine = ours.compute_loss(model, ours.collate(pairs))
    theirs = RewardTrainer.compute_loss(
        ours, model, DataCollatorForPreference(pad_token_id=tokenizer.pad_token_id)(plain)
    )
    assert torch.allclose(mine, theirs, atol=1e-6)
    one, other = (ours.compute_loss(model, ours.collate([pair])) for pair in pairs)
    counted = [pair | {"weight": weight} for pair, weight in zip(pairs, (1.5, 0.5), strict=True)]
    assert torch.allclose(ours.compute_loss(model, ours.collate(counted)), (1.5 * one + 0.5 * other) / 2, atol=1e-6)


def test_an_epoch_may_end_with_an_evaluation(world, tmp_path):
    seen = []
    track = SimpleNamespace(log=lambda metrics, step: seen.append(step) if "eval/loss" in metrics else None)
    trained(world, tmp_path, track, eval_steps="epoch", num_train_epochs=2, batch_size=64)
    rows = len(data.view(world.dataset, "pairs", "train"))
    assert seen == [-(-rows // 64), 2 * -(-rows // 64)]


def test_the_best_checkpoint_on_the_validation_rows_is_kept(world, tmp_path):

    seen = {}
    track = SimpleNamespace(
        log=lambda metrics, step: seen.update({step: metrics["eval/loss"]} if "eval/loss" in metrics else {})
    )
    best = {"load_best_model_at_end": True, "eval_steps": 3, "save_steps": 3, "early_stopping_patience": 1}
    # a step this large spoils the model after a while, so that the last checkpoint is not the best one
    trained(
        world,
        tmp_path,
        track,
        learning_rate=0.3,
        lr_scheduler_type="constant",
        num_train_epochs=4,
        activation_checkpointing=True,
        **best,
    )
    judge = load_reward_model(tmp_path, HARDWARE)
    rows = data.view(world.dataset, "pairs", "validation").to_list()
    prompts = [row["prompt"] for row in rows]
    chosen, rejected = (
        torch.tensor(judge.score(prompts, [row[side] for row in rows]).total) for side in ("chosen", "rejected")
    )
    centre = settings().center_rewards_coefficient
    loss = -torch.nn.functional.logsigmoid(chosen - rejected) + centre * (chosen + rejected) ** 2
    assert min(seen.values()) < max(seen.values())
    assert loss.mean().item() == pytest.approx(min(seen.values()), rel=1e-3)


def test_a_reward_model_is_asked_for_no_completions(tmp_path):
    asks = SimpleNamespace(items=lambda context: [Item("a", ask("why"), "")], score=lambda replies, context: replies)
    chosen = ChosenMeasurement("mine", "stage", asks, MeasureSettings(), None)
    subject = RewardModelSubject(tmp_path, HARDWARE)
    small = composed("model=pocket_small", "dataset=pocket_small")
    assert chosen.measure(Context(small, subject, None)) == ([], [])
