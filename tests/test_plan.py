"""The plan: what a fingerprint depends on, what is reused, what is refused."""

import json

import pytest
from command import alignlab, config

from alignlab.data import view_sizes
from alignlab.errors import Mistake
from alignlab.pipeline import fingerprint, plan

SMALL = ["method=dpo", "model=pocket_small", "dataset=pocket_small"]


@pytest.fixture(scope="module", autouse=True)
def rows():
    from alignlab.pipeline.prepare_inputs import prepare_data

    prepare_data(config(*SMALL))


def fingerprints(*overrides: str) -> dict[str, str]:
    return {stage.name: stage.fingerprint for stage in plan.make(config(*SMALL, *overrides)).stages}


def test_dpo_needs_sft_first():
    made = plan.make(config(*SMALL))
    assert [stage.name for stage in made.stages] == ["sft", "dpo"]
    assert made.stages[0].source.name == "base"
    assert made.stages[1].source.path == made.stages[0].folder / "model"


def test_a_base_to_start_from_needs_no_stage():
    assert [stage.name for stage in plan.make(config(*SMALL, "method.policy=base")).stages] == ["dpo"]


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "stages.sft.learning_rate=1e-5",
        "dataset.seed=7",
        "hardware.threads=7",
        "model.seed=9",
        "model/adapter=lora",
    ],
)
def test_what_decides_the_weights_changes_every_fingerprint(override):
    before, after = fingerprints(), fingerprints(override)
    assert before["sft"] != after["sft"]
    assert before["dpo"] != after["dpo"]


def test_a_later_stage_does_not_change_an_earlier_one():
    before, after = fingerprints(), fingerprints("method.beta=0.7")
    assert before["sft"] == after["sft"]
    assert before["dpo"] != after["dpo"]


@pytest.mark.parametrize("override", ["tracking=jsonl", "evaluation=quick", "method.logging_steps=50", "dry_run=true"])
def test_what_decides_nothing_changes_no_fingerprint(override):
    assert fingerprints() == fingerprints(override)


def test_sft_alone_and_before_dpo_is_the_same_stage():
    assert fingerprints("method=sft")["sft"] == fingerprints()["sft"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{folder}", "holds no model; give a folder with config.json in it, or auto, or base"),
        ("{folder}/nothing", "is not there; give a model's folder, a hub id"),
        ("nothing", "is not there"),
    ],
)
def test_a_policy_that_is_no_model_is_refused(given, said, tmp_path):
    with pytest.raises(Mistake, match=said):
        plan.make(config(*SMALL, f"method.policy={given.format(folder=tmp_path)}"))


def test_a_hub_id_is_taken_as_given():
    stage = plan.make(config(*SMALL, "method.policy=owner/name")).stages[-1]
    assert (stage.source.name, stage.source.path.parent.name) == ("owner/name", "pretrained")


def test_cost_counts_rows_and_steps():
    bound = config(*SMALL, "stages.sft.batch_size=32", "stages.sft.num_train_epochs=2")
    stage = plan.make(bound).stages[0]
    read = plan.cost(bound, stage)
    assert read.steps == 2 * -(-read.rows // 32)


def test_a_dry_run_prints_the_plan_and_makes_no_run(tmp_path):
    done = alignlab(*SMALL, "seed=4242", "dry_run=true", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split()[:2] for line in done.stdout.splitlines()[1:] if not line.startswith(" " * 17)]
    assert [name for name, _ in lines] == ["base", "sft", "dpo"]
    assert [action for _, action in lines[1:]] == ["run", "run"]
    assert not (tmp_path / "outputs").exists()


def finished(made):
    """Leave the last stage of a plan in the cache, finished, with the parts of its fingerprint alone."""
    stage = made.stages[-1]
    facts = {"parts": fingerprint.parts(made.config, stage.settings, stage.inputs)}
    stage.folder.mkdir(parents=True)
    (stage.folder / "provenance.json").write_text(json.dumps(facts))


def test_a_plan_says_what_differs_from_the_nearest_finished_stage(monkeypatch, tmp_path):
    def line(*overrides):
        bound = config(*SMALL, "method=sft", "hardware.threads=2", *overrides)
        return list(fingerprint.describe_change(bound, bound.method, {"policy": plan.base_model(bound)}))

    monkeypatch.setattr(fingerprint, "cache_root", lambda: tmp_path)
    monkeypatch.setattr(plan, "cache_root", lambda: tmp_path)
    assert line() == []
    finished(plan.make(config(*SMALL, "method=sft", "hardware.threads=2")))
    finished(plan.make(config(*SMALL, "method=sft", "hardware.threads=2", "seed=5", "method.batch_size=8")))
    assert line("hardware.threads=1") == ["not reused: threads 2 → 1"]
    assert line("seed=5") == ["not reused: method.batch_size 8 → 32"]
    assert line("dataset.seed=7") == ["not reused: data changed"]


def test_the_size_of_a_view_is_counted_once_and_a_damaged_entry_again(monkeypatch):
    dataset = config(*SMALL).dataset
    rows = view_sizes.view(dataset, "pairs", "train")
    characters = [len(row["chosen"]) + len(row["rejected"]) + len(row["id"]) + len(row["kind"]) for row in rows]
    characters = [
        n + sum(len(turn["content"]) for turn in row["prompt"]) for n, row in zip(characters, rows, strict=True)
    ]
    size = view_sizes.view_size(dataset, "pairs", "train")
    assert size == (len(rows), sum(characters[:200]) / 200)
    reads = []
    monkeypatch.setattr(view_sizes, "view", lambda *place: reads.append(place) or rows)
    assert view_sizes.view_size(dataset, "pairs", "train") == size
    assert not reads
    view_sizes.place(dataset, "pairs", "train").write_text("[1, 2]")
    assert view_sizes.view_size(dataset, "pairs", "train") == size
    assert reads
