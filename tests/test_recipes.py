"""The well-known recipes compose and plan without a hub and without data; their settings are the published ones."""

import pytest
from command import config

from alignlab.config.groups import Groups
from alignlab.pipeline import plan

RECIPES = {  # stages, learning rate, epochs, rows a step, longest row, beta: as their sources state them
    "llama31_8b_hh_sft": (["sft"], 2e-5, 2, 64, 2048, None),
    "zephyr_7b_sft": (["sft"], 2e-5, 1, 128, 2048, None),
    "zephyr_7b_dpo": (["dpo"], 5e-7, 1, 128, 1024, 0.01),
    "smollm2_360m_sft": (["sft"], 1e-3, 2, 128, 8192, None),
    "smollm2_360m_dpo": (["dpo"], 1e-6, 2, 128, 1024, 0.5),
    "pythia_28b_hh_sft": (["sft"], 5e-7, 1, 64, 512, None),
    "pythia_28b_hh_dpo": (["sft", "dpo"], 5e-7, 1, 64, 512, 0.1),
}

PPO = {  # stages, learning rate, completions, a rollout, passes, steps a pass, tokens, temperature, KL: weight, target
    "tldr_pythia_160m_ppo": (["sft", "ppo"], 3e-6, 1_000_000, 512, 4, 1, 53, 0.7, 0.05, None),
    "tldr_pythia_410m_ppo": (["sft", "ppo"], 3e-6, 1_000_000, 512, 4, 1, 53, 0.7, 0.05, None),
    "tldr_pythia_1b_ppo": (["ppo"], 3e-6, 1_000_000, 512, 4, 1, 53, 0.7, 0.05, None),
    "gpt2_sentiment_ppo": (["ppo"], 1e-5, 1_000_000, 512, 4, 1, 24, 0.7, 0.15, 6.0),
    "gsm8k_qwen25_05b_ppo": (["sft", "ppo"], 1e-6, 112_095, 256, 1, 4, 512, 1.0, 0.001, None),
}

EVALUATED = {  # steps between evaluations, where the source evaluates while training
    **dict.fromkeys(("llama31_8b_hh_sft", "zephyr_7b_sft", "smollm2_360m_sft"), "epoch"),
    **dict.fromkeys(("zephyr_7b_dpo", "smollm2_360m_dpo"), 100),
}


def test_every_recipe_is_known_here():
    assert {*RECIPES, *PPO} <= {*Groups().options["experiment"]}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_plans_with_its_published_settings(name):
    stages, *settings = RECIPES[name]
    bound = config(f"experiment={name}", "dry_run=true")
    made = plan.make(bound)
    assert [stage.name for stage in made.stages] == stages
    for stage in made.stages:
        own = stage.settings
        found = [own.learning_rate, own.num_train_epochs, own.batch_size, own.max_length]
        assert found == settings[:4]
    last = made.stages[-1].settings
    assert getattr(last, "beta", None) == settings[4]
    assert last.eval_steps == EVALUATED.get(name)
    lines = list(plan.show(made))
    assert "made ready" in lines[1]
    known = "rows, " if getattr(bound.dataset, "rows", None) else "unknown until the data is downloaded"
    assert all(known in line for line in lines[2:] if not line.startswith(" " * 17))


@pytest.mark.parametrize("name", PPO)
def test_a_recipe_of_ppo_plans_with_its_published_settings(name):
    stages, *settings = PPO[name]
    made = plan.make(config(f"experiment={name}", "dry_run=true"))
    assert [stage.name for stage in made.stages] == stages
    own = made.stages[-1].settings
    assert settings == [
        own.learning_rate, own.total_episodes, own.batch_size, own.num_ppo_epochs, own.num_mini_batches,
        own.max_new_tokens, own.temperature, own.kl_coef, own.kl_target,
    ]  # fmt: skip
    assert (own.vf_coef, own.cliprange, own.cliprange_value, own.gamma) == (0.1, 0.2, 0.2, 1.0)


def test_pythias_sft_is_the_first_stage_of_its_dpo():
    alone, first = (
        plan.make(config(f"experiment={name}", "dry_run=true")).stages[0]
        for name in ("pythia_28b_hh_sft", "pythia_28b_hh_dpo")
    )
    assert alone.fingerprint == first.fingerprint


def test_a_set_of_the_hub_is_fetched_once_and_read_as_files_are(monkeypatch, tmp_path):
    import datasets

    from alignlab import data
    from alignlab.data import hub_dataset

    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    asked = []

    def load_dataset(path, name, split, revision):
        asked.append((path, name, split, revision))
        turns = lambda n: [{"role": "user", "content": f"{split} {n}?"}, {"role": "assistant", "content": "Yes."}]  # noqa: E731
        return datasets.Dataset.from_list([{"messages": turns(n)} for n in range(3)])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub_dataset, "require_hub", lambda *_: None)
    own = config("model=scratch", "dataset=hub", "dataset.path=owner/name", "dataset.train_split=train_sft").dataset
    own = own.model_copy(update={"validation": 0.0})
    before = data.content(own)
    hub_dataset.fetch(own)
    hub_dataset.fetch(own)
    assert asked == [("owner/name", None, "train_sft", "main"), ("owner/name", None, "test", "main")]
    assert data.content(own) != before
    rows = data.view(own, "demonstrations", "train")
    assert sorted(row["prompt"][-1]["content"] for row in rows) == ["train_sft 0?", "train_sft 1?", "train_sft 2?"]
    assert len(data.view(own, "demonstrations", "test")) == 3
