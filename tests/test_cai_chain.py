"""Constitutional AI on the small world, by the real command: what it leaves, what it reuses, and PPO after it."""

import json
from pathlib import Path

import pytest
from command import alignlab, config

from alignlab.methods.cai_sft import most_rows

pytestmark = [pytest.mark.slow, pytest.mark.runs]

SMALL = [
    "model=pocket_small", "dataset=pocket_small", "evaluation=quick", "evaluation.prompts=20", "tracking=jsonl",
    "stages.cai_sft.prompts=120", "stages.cai_sft.num_train_epochs=1",
]  # fmt: skip
DPO = ["method=cai", *SMALL, "method.prompts=60", "method.helpful=60", "method.max_steps=6", "hydra.run.dir=dpo"]
PPO = [
    "method=cai", "method.then=ppo", *SMALL, "stages.cai_rm.prompts=60", "stages.cai_rm.helpful=60",
    "stages.cai_rm.max_steps=6", "method.total_episodes=192", "method.gates.before=warn", "hydra.run.dir=ppo",
]  # fmt: skip


def lines(file: Path):
    return [json.loads(line) for line in file.read_text().splitlines()]


def measured(folder: Path):
    return {row["name"]: row for row in json.loads((folder / "result.json").read_text())["measurements"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("cai")


@pytest.fixture(scope="module")
def by_dpo(place):
    done = alignlab(*DPO, folder=place, timeout=600)
    assert done.returncode == 0, done.stderr
    return place / "dpo"


def test_every_round_leaves_less_harm_in_the_data(by_dpo):
    rows = measured(by_dpo / "cai_sft")
    first, once, twice = (rows[f"data/harmful/round_{number}"]["value"] for number in range(3))
    assert first > once >= twice
    assert rows["data/harmful/round_1"]["difference"]["previous"]["high"] < 0


def test_what_is_learned_is_what_was_kept(by_dpo):
    revised, labelled = lines(by_dpo / "cai_sft" / "revisions.jsonl"), lines(by_dpo / "cai" / "labels.jsonl")
    rows = json.loads((by_dpo / "cai_sft" / "rows.json").read_text())
    assert rows["model"] == sum(not one["dropped"] for one in revised)
    assert rows["people"] > 0
    assert rows["people, on attacks"] == 0
    bound = config(*DPO[:-1])
    assert most_rows(bound, bound.stages["cai_sft"]) == len(revised) + rows["people"]  # what the plan has announced
    rows = json.loads((by_dpo / "cai" / "rows.json").read_text())
    assert rows == {"people": 60, "people, on attacks": 0, "model": sum(one["kept"] for one in labelled)}
    assert all(0.02 <= one["verdict"]["label"] <= 0.98 for one in labelled)
    assert len({one["verdict"]["label"] for one in labelled}) > 10  # soft, not a coin's two sides


def test_the_report_tells_the_story(by_dpo):
    page = (by_dpo / "report.html").read_text()
    for said in ("Constitutional AI, step by step", "RLAIF, by DPO", "Effect of each principle", "Over-refusal"):
        assert said in page


def test_ppo_goes_on_from_the_same_supervised_phase(by_dpo, place):
    done = alignlab(*PPO, folder=place, timeout=600)
    assert done.returncode == 0, done.stderr
    steps = json.loads((place / "ppo" / "plan.json").read_text())
    assert steps == [
        {"stage": "cai_sft", "action": "reused"},
        {"stage": "cai_rm", "action": "ran"},
        {"stage": "cai_ppo", "action": "ran"},
    ]
    rows = json.loads((place / "ppo" / "cai_rm" / "rows.json").read_text())
    assert rows["model"] == sum(one["kept"] for one in lines(place / "ppo" / "cai_rm" / "labels.jsonl")) > 0
    assert measured(place / "ppo" / "cai_ppo")["gold/score"]["previous"]
