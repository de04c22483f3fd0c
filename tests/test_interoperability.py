"""lm-eval, evaluate: the same numbers through us and through them."""

import json

import pytest
from command import ROOT, config
from tiny import tiny_model, tiny_tokenizer

import alignlab
from alignlab.errors import Failure, Mistake
from alignlab.evaluation import evaluate
from alignlab.evaluation.measures import evaluate_metric, lm_eval
from alignlab.evaluation.protocol import Context, measurements_of
from alignlab.evaluation.replies import Item, Reply, prompt_hash
from alignlab.evaluation.scores import interval
from alignlab.evaluation.subjects import LanguageModel
from alignlab.models.sampling import Completion

WORDS = ("how do i bake", "how do i stop", "why now", "mix flour and water", "bake bread", "no", "yes", "stop bread")


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    tiny_model().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def exported(tmp_path):
    """Pairs as lm-eval's task; the better choice is by turns a long and a short one."""
    rows = [
        {"prompt": f"{first} {second}", "chosen": first, "rejected": second}
        for first in WORDS for second in WORDS if first != second
    ]  # fmt: skip
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return alignlab.export_lm_eval("hhh", tmp_path / "tasks", f"measure.hhh.path={tmp_path}/pairs.jsonl")


@pytest.mark.runs
def test_an_exported_task_has_the_same_numbers_in_lm_eval_and_here(model, exported):
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = simple_evaluate(
        HFLM(pretrained=AutoModelForCausalLM.from_pretrained(model), tokenizer=AutoTokenizer.from_pretrained(model)),
        tasks=["alignlab_hhh"],
        task_manager=TaskManager(include_path=str(exported.parent), include_defaults=False),
        bootstrap_iters=0,
    )
    chosen = config(
        "measure=[lm_eval]", f"evaluation.tasks=[{exported}]", "model=scratch", "dataset=hh_rlhf",
        f"dataset.train={__file__}", f"dataset.test={__file__}",
    )  # fmt: skip
    ours = evaluate(Context(chosen, LanguageModel(model, chosen.hardware)))
    scores = ours.scores["lm_eval/alignlab_hhh/acc"]
    assert len(scores.ids) == len(WORDS) * (len(WORDS) - 1)
    assert 0 < interval(scores, 0.95).value < 1
    assert interval(scores, 0.95).value == theirs["results"]["alignlab_hhh"]["acc,none"]
    by_document = [row["acc"] for row in sorted(theirs["samples"]["alignlab_hhh"], key=lambda row: row["doc_id"])]
    assert list(scores.values) == by_document
    assert scores.metric.better == "higher"


def test_a_task_declares_which_metrics_are_rates_and_which_direction_is_better():
    """Values do not decide: a mean that happens to be 0 or 1 in every document of one model is no rate."""
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    listed = [
        {"metric": "acc", "aggregation": "mean"}, {"metric": "f1", "aggregation": "f1"},
        {"metric": "error", "aggregation": "mean"},
    ]  # fmt: skip
    own = lm_eval.means("own", {"metric_list": listed}, {"acc": True, "error": False})
    assert {name: (one.rate, one.better) for name, one in own.items()} == {
        "lm_eval/own/acc": (True, "higher"), "lm_eval/own/error": (False, "lower")
    }  # fmt: skip
    by_code = lm_eval.means("own", {"metric_list": listed[:1], "process_results": "def …"}, {"acc": True})
    assert not by_code["lm_eval/own/acc"].rate
    assert list(lm_eval.means("own", {"output_type": "loglikelihood"}, {"acc": True})) == ["lm_eval/own/acc"]
    sample = {"doc_id": 0, "filter": "strict", "metrics": ["acc", "f1"], "acc": 1.0, "f1": 0.5, "filtered_resps": []}
    assert dict(lm_eval.document("own", sample, own).values) == {"lm_eval/own/acc,strict": 1.0}


def test_log_probabilities_and_greedy_texts_equal_lm_evals(model):
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from alignlab.evaluation.lm_eval_model import SubjectModel

    chosen = config("model=pocket_small", "dataset=pocket_small")
    ours = SubjectModel(Context(chosen, LanguageModel(model, chosen.hardware)))
    theirs = HFLM(
        pretrained=AutoModelForCausalLM.from_pretrained(model), tokenizer=AutoTokenizer.from_pretrained(model)
    )
    pairs = [(first, f" {second}") for first in WORDS for second in WORDS]
    asked = [Instance("loglikelihood", {}, pair, place) for place, pair in enumerate(pairs)]
    found, expected = (one.loglikelihood(asked) for one in (ours, theirs))
    assert [one for one, _ in found] == pytest.approx([one for one, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    rolling = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in WORDS]
    assert ours.loglikelihood_rolling(rolling) == pytest.approx(theirs.loglikelihood_rolling(rolling), abs=1e-4)
    until = [Instance("generate_until", {}, (text, {"until": ["no"], "max_gen_toks": 6}), 0) for text in WORDS]
    texts = zip(*([text.split() for text in one.generate_until(until)] for one in (ours, theirs)), strict=True)
    same = [own == other for own, other in texts if len(own) == len(other)]  # theirs may hold special tokens as nothing
    assert all(same)
    assert len(same) >= 4


def test_a_task_that_is_not_there_and_a_measurement_without_right_choices_are_named(model, tmp_path):
    pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
    chosen = config("measure=[lm_eval]", "evaluation.tasks=[nowhere.yaml]")
    with pytest.raises(Mistake, match=r"evaluation\.tasks: nowhere\.yaml is not there"):
        evaluate(Context(chosen, LanguageModel(model, chosen.hardware)))
    assert measurements_of(config("measure=[lm_eval]"), "policy") == []
    with pytest.raises(Failure, match="length asks no questions with a right choice"):
        alignlab.export_lm_eval("length", tmp_path)


def test_a_measurement_is_an_evaluate_metric_and_goes_with_others():
    import evaluate as theirs

    refusals = alignlab.as_metric("refusal", f"evaluation.data={ROOT}")
    texts = ["I can't help with that.", "Mix flour and water."]
    assert isinstance(refusals, theirs.Metric)
    assert refusals.compute(predictions=texts, kind="harmful") == {
        "refusal/harmful_answered": 0.5, "refusal/harmful_partial": 0, "refusal/harmful_empty": 0,
    }  # fmt: skip
    refusals.add_batch(predictions=texts[:1])
    assert refusals.compute(kind="safe")["refusal/safe_answered"] == 0
    with pytest.raises(Failure, match="as_metric: perplexity does not score completions alone"):
        alignlab.as_metric("perplexity")


METRIC = """
import datasets
import evaluate


class Shared(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references, power=1):
        first, second = (set(texts[0].split()) for texts in (predictions, references))
        return {"shared": len(first & second) ** power, "words": [*first]}
"""


def test_a_metric_of_evaluate_in_a_folder_is_a_measurement(tmp_path, monkeypatch):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "shared.py").write_text(METRIC)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    chosen = config(
        f"measure.evaluate_metric.metric={tmp_path}/shared", "measure=[evaluate_metric]",
        "+measure.evaluate_metric.options.power=2",
    )  # fmt: skip
    prompt = [{"role": "user", "content": "how"}]
    monkeypatch.setattr(evaluate_metric, "references", lambda context: {prompt_hash(prompt): ["mix flour", "no"]})
    replies = [
        Reply(Item(str(place), prompt), (Completion(text, True, ()),))
        for place, text in enumerate(("mix flour", "mix"))
    ]
    own = Context(chosen, None, settings=chosen.measure["evaluate_metric"])
    records = list(evaluate_metric.score(replies, own))
    assert [record.values for record in records] == [{"evaluate_metric/shared": 4}, {"evaluate_metric/shared": 1}]
    with pytest.raises(Failure, match=r"measure\.evaluate_metric\.metric: .*nowhere cannot be loaded"):
        evaluate_metric.load(chosen.measure["evaluate_metric"].model_copy(update={"metric": f"{tmp_path}/nowhere"}))
