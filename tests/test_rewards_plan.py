"""What a reward means for the plan: which stages run, which folders a method is handed, when a stage is another one."""

import sys
from types import ModuleType

import pytest
from command import config
from tiny import tiny_model, tiny_tokenizer

from alignlab.config.method import Method
from alignlab.errors import Mistake
from alignlab.models import references
from alignlab.pipeline import model_references, plan

SMALL = ["model=pocket_small", "dataset=pocket_small"]


class Rewarded(Method):
    """The settings of a method that trains on a reward."""

    policy: str
    reward_model: str


@pytest.fixture(scope="module", autouse=True)
def rows():
    from alignlab.pipeline.prepare_inputs import prepare_data

    prepare_data(config(*SMALL))


@pytest.fixture(autouse=True)
def method(monkeypatch):
    module = ModuleType("alignlab.methods.rewarded")
    module.__dict__.update(NEEDS={"policy": "sft", "reward_model": "rm"}, VIEW="prompts", Config=Rewarded, train=print)
    monkeypatch.setitem(sys.modules, "alignlab.methods.rewarded", module)


def rewarded(*overrides, reward_model="auto"):
    """A command of that method."""
    made = config(*SMALL, *overrides)
    stages = {"sft": made.stages["sft"], "rm": config(*SMALL, "method=rm").method}
    own = Rewarded(name="rewarded", policy="auto", reward_model=reward_model)
    return made.model_copy(update={"method": own, "stages": stages})


def last(*overrides, **more):
    return plan.make(rewarded(*overrides, **more)).stages[-1]


@pytest.fixture
def folder(tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path


FUNCTION = ["reward=function", "reward.function=os.path:join"]
PART = ["reward=mixture", "+reward@reward.parts.extra.reward=model", "reward.parts.extra.weight=1"]


def test_a_reward_model_is_trained_where_the_reward_reads_one():
    names = [stage.name for stage in plan.make(rewarded()).stages]
    assert (sorted(names[:2]), names[2:]) == (["rm", "sft"], ["rewarded"])
    assert [stage.name for stage in plan.make(rewarded("reward=mixture")).stages] == names
    assert {*last().inputs} == {"policy", "reward_model"}


def test_no_reward_model_is_trained_for_a_reward_that_reads_none(folder):
    assert [stage.name for stage in plan.make(rewarded(*FUNCTION)).stages] == ["sft", "rewarded"]
    stage = last(f"reward.path={folder}")
    assert {name: source.path for name, source in stage.inputs.items() if name != "policy"} == {
        "reward": folder / "model"
    }


def test_every_model_of_a_mixture_is_an_input(folder):
    both = [*PART, "reward.parts.extra.normalize=true", f"reward.parts.extra.reward.path={folder}"]
    assert {*last(*both).inputs} == {"policy", "reward_model", "reward.parts.extra.reward"}


def test_a_reward_model_may_be_named_by_the_method_or_the_reward(folder):
    assert last(reward_model=str(folder)).inputs["reward_model"].path == folder / "model"
    hub = last("reward.path=owner/name").inputs["reward"]
    assert (hub.name, hub.path.parent.name) == ("owner/name", "published")
    assert [model.path for model in model_references.published_models(rewarded("reward.path=owner/name"))] == [
        "owner/name"
    ]
    assert list(model_references.pretrained_models(rewarded("reward.path=owner/name"))) == []


def test_a_reward_model_that_is_not_there_is_refused(tmp_path):
    for wrong in (rewarded(f"reward.path={tmp_path}/no"), rewarded(reward_model="nothing")):
        with pytest.raises(Mistake, match="is not there"):
            model_references.check_models(wrong)
    with pytest.raises(Mistake, match=r"^reward\.parts\.model\.reward\.path: .* holds no model"):
        model_references.check_models(rewarded("reward=mixture", f"reward.parts.model.reward.path={tmp_path}"))


def test_a_label_that_a_classifier_lacks_is_told_before_anything_runs(tmp_path):
    from transformers import LlamaForSequenceClassification

    shape = tiny_model().config
    shape.id2label, shape.label2id = {0: "hate", 1: "nothate"}, {"hate": 0, "nothate": 1}
    LlamaForSequenceClassification(shape).save_pretrained(tmp_path)
    own = ["reward=classifier", f"reward.path={tmp_path}"]
    model_references.check_models(rewarded(*own, "reward.label=nothate"))
    with pytest.raises(Mistake, match=r"^reward\.label: .* has no 'toxic'; it has hate, nothate$"):
        model_references.check_models(rewarded(*own, "reward.label=toxic"))
    model_references.check_models(config("method=dpo", *SMALL, *own, "reward.label=toxic"))  # dpo takes no reward
    (tmp_path / "config.json").write_text("{}")
    assert references.classifier_labels(tmp_path) == ["LABEL_0", "LABEL_1"]
    assert references.classifier_labels(tmp_path / "none") == []


def test_what_decides_a_reward_decides_the_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "planned_reward.py"
    file.write_text("def one(prompts, completions, finished):\n    return [0.0] * len(completions)\n")
    own = ["reward=function", "reward.function=planned_reward:one"]
    first = last(*own).fingerprint
    assert last(*own).fingerprint == first
    file.write_text(file.read_text().replace("0.0", "1.0"))
    assert last(*own).fingerprint != first
    server = ["reward=url", "reward.url=http://127.0.0.1:8000"]
    assert last(*server, "reward.timeout=9.0").fingerprint == last(*server).fingerprint
    assert last(*server).fingerprint != last("reward=url", "reward.url=http://127.0.0.1:8001").fingerprint


def test_a_reward_decides_nothing_for_a_method_that_takes_none():
    plain, other = (
        plan.make(config(*SMALL, *more)).stages[-1].fingerprint for more in (["method=dpo"], ["method=dpo", *FUNCTION])
    )
    assert plain == other


@pytest.mark.parametrize("place", ["method.policy", "model.path"])
def test_a_policy_that_cannot_generate_is_told_before_anything_runs(tmp_path, place):
    from transformers import LlamaForSequenceClassification

    LlamaForSequenceClassification(tiny_model().config).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    own = ["model=local", f"model.path={tmp_path}"] if place == "model.path" else [f"method.policy={tmp_path}"]
    said = f"^{place}: .* is a LlamaForSequenceClassification, which generates nothing; give a language model's folder$"
    with pytest.raises(Mistake, match=said.replace(".", r"\.", 1)):
        model_references.check_models(config("method=sft", "dataset=pocket", *own))
