"""Explanations: completeness by hand, a model against itself, planted rows, and what PPO keeps."""

import json
import math
import types

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import ask, tiny_model, tiny_tokenizer

from alignlab.config.compose import compose
from alignlab.errors import Failure
from alignlab.explanations import gradients, integrated_gradients, log_ratio, nearest, rollouts
from alignlab.explanations.nearest import Row
from alignlab.explanations.record import token_texts
from alignlab.models.log_probs import summed_log_probs
from alignlab.tasks.explain import chosen


def test_integrated_gradients_of_a_linear_score_are_weight_times_difference():
    weight = torch.tensor([[1.0, -2.0], [0.5, 3.0]])  # of two tokens
    inputs, baseline = torch.tensor([[[1.0, 1.0], [2.0, 0.0]]]), torch.tensor([[[0.0, 2.0], [0.0, 1.0]]])
    found = integrated_gradients.attribute(lambda rows: (rows * weight).sum((1, 2)), inputs, baseline)
    assert found.values.tolist() == pytest.approx([1 * 1 + -2 * -1, 0.5 * 2 + 3 * -1])  # 3 and -2
    assert (found.score, found.baseline) == (0.0, -1.0)
    assert found.steps == integrated_gradients.FIRST_STEPS
    assert found.error < 1e-5


def test_the_steps_of_a_steep_score_are_doubled_until_it_is_complete():
    found = integrated_gradients.attribute(
        lambda rows: torch.sigmoid(400 * (rows.sum((1, 2)) - 0.3)), torch.ones(1, 1, 1), torch.zeros(1, 1, 1)
    )
    assert found.steps > integrated_gradients.FIRST_STEPS
    assert found.error <= 0.01
    assert found.values.sum().item() == pytest.approx(1.0, abs=0.01)


def test_a_completion_s_attributions_add_up_to_its_score_and_control_tokens_get_none():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    prompt, completion = [6, 7, 8], [9, 10, 11, 2]

    def score(rows):
        return model(input_ids=torch.tensor([prompt + completion] * rows)).logits[:, -1, 5]

    found = integrated_gradients.over_tokens(model, completion, tokenizer.all_special_ids, score)
    assert found.score == pytest.approx(score(1).item())
    assert found.values.sum().item() == pytest.approx(found.score - found.baseline, rel=0.01)
    assert found.values[3].item() == 0  # the end of the turn
    assert all(value != 0 for value in found.values[:3].tolist())


def test_a_score_that_does_not_read_the_embeddings_is_refused():
    model = tiny_model()
    with pytest.raises(Failure, match="does not read its completion's embeddings"):
        integrated_gradients.over_tokens(model, [9, 10], [], lambda rows: torch.zeros(rows))


def test_the_log_ratio_of_a_model_against_itself_is_0():
    model, other, tokenizer = tiny_model(0), tiny_model(1), tiny_tokenizer()
    same = log_ratio.explain(model, model, tokenizer, ask("how", "do"), "mix flour")
    assert same["tokens"] == ["mix", " flour", " </s>"]
    assert [track["values"] for track in same["tracks"]] == [[0.0] * 3, [0.0] * 3]
    ratio, kl = (
        t["values"] for t in log_ratio.explain(model, other, tokenizer, ask("how", "do"), "mix flour")["tracks"]
    )
    back = log_ratio.explain(other, model, tokenizer, ask("how", "do"), "mix flour")["tracks"][0]["values"]
    assert ratio == pytest.approx([-value for value in back], abs=1e-5)
    assert all(value > 0 for value in kl)


def rows():
    texts = ["how do i bake bread", "why no", "mix flour and water", "stop now", "yes yes"]
    return [Row("sft", str(number), ask(*text.split()), f"answer {number}") for number, text in enumerate(texts)]


def test_the_planted_row_is_the_nearest_by_words_and_by_embeddings():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    embedded = nearest.embed_rows(model, tokenizer, rows())
    for wanted in rows():
        prompt = wanted.prompt
        for near in (
            nearest.by_words(prompt, rows(), 2)["neighbours"],
            nearest.by_embeddings(model, tokenizer, prompt, rows(), embedded, 2)["neighbours"],
        ):
            assert len(near) == 2
            assert (near[0]["id"], near[0]["stage"]) == (wanted.id, "sft")
            assert near[0]["similarity"] == pytest.approx(1.0, abs=1e-5)


def test_a_rare_word_outweighs_a_phrasing_that_many_rows_share():
    texts = ["how do i bake bread"] * 3 + ["why bake flour", "how do i mix water"]
    many = [Row("sft", str(number), ask(*text.split()), str(number)) for number, text in enumerate(texts)]
    near = nearest.by_words(ask("how", "do", "i", "bake", "flour"), many, 1)["neighbours"]
    assert near[0]["id"] == "3"  # of four words the others share, flour alone is rare
    common, bake, rare = math.log(5 / 4) ** 2, math.log(5 / 4) ** 2, math.log(5) ** 2
    length = (3 * common + bake + rare) * (rare + bake + rare)  # why is as rare as flour
    assert near[0]["similarity"] == pytest.approx((bake + rare) / length**0.5)


def test_the_weights_of_tokens_and_their_mean_by_hand():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    (row,) = [Row("sft", "0", ask("no", "no", "why"), "")]
    embedded = nearest.embed_rows(model, tokenizer, [row])
    ids = tokenizer.convert_tokens_to_ids(["<user>", "no", "no", "why", "<assistant>"])
    by_token = {ids[1]: 0.001 / (0.001 + 2 / 5), ids[3]: 0.001 / (0.001 + 1 / 5)}
    assert [embedded.weights[token].item() for token in by_token] == pytest.approx(list(by_token.values()))
    assert embedded.weights[tokenizer.convert_tokens_to_ids("bake")] == 1  # no row has it
    weights = torch.tensor([by_token.get(token, by_token[ids[3]]) for token in ids])
    mean = weights @ model.get_input_embeddings().weight[ids] / weights.sum()
    assert torch.allclose(embedded.prompts[0], mean, atol=1e-6)


def test_the_similarity_of_gradients_of_a_linear_model_by_hand():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))

    def squared_error(x, y):  # its gradient is (w x - y) x
        return lambda: (weight @ torch.tensor(x) - y).square() / 2

    item = squared_error([1.0, 0.0], 0.0)  # [1, 0]
    rows = squared_error([3.0, 4.0], 1.0), squared_error([0.0, 1.0], 0.0), squared_error([2.0, 0.0], 4.0)
    similar = gradients.similarities([weight], [item], rows)  # with [30, 40], [0, 2] and [-4, 0]
    assert similar.tolist() == [pytest.approx([0.6, 0.0, -1.0])]


@pytest.mark.parametrize("adapter", [False, True])
def test_the_planted_row_is_the_nearest_by_gradients_and_a_rejected_completion_is_the_farthest(adapter):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    embeddings = model.get_input_embeddings().weight
    if adapter:
        model = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)).eval()
    else:
        model.lm_head.weight = embeddings  # shared
    checkpoint = gradients.Checkpoint(model, tokenizer, gradients.compared_weights(model))
    texts = ["mix flour", "no", "stop now", "yes"]
    taught = [row._replace(text=text) for row, text in zip(rows(), texts, strict=False)]
    items = [(row.prompt, row.text) for row in taught]
    (value,) = summed_log_probs(model, tokenizer, [taught[0].prompt], ["mix flour"], 1)
    assert gradients.loss(checkpoint, *items[0]).item() == pytest.approx(-value, abs=1e-4)
    avoided = Row("dpo", "avoided", taught[0].prompt, "no", rejected="mix flour")
    similar = gradients.of_checkpoint(checkpoint, items, [*taught, avoided])
    assert similar.argmax(1).tolist() == [0, 1, 2, 3]
    assert similar.diag().tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    assert similar[0, 4] == similar[0].min() < 0
    assert embeddings.grad is None
    assert not embeddings.requires_grad


def test_texts_of_tokens_join_to_the_text():
    tokenizer = tiny_tokenizer()
    ids = tokenizer("how do i mix flour and water no yes stop why now how do")["input_ids"]
    texts = token_texts(tokenizer, ids)
    assert len(texts) == len(ids)
    assert "".join(texts) == tokenizer.decode(ids)


def test_a_character_of_several_tokens_belongs_to_its_last_one():
    data = "é€".encode()  # two and three bytes, one token each
    decoder = types.SimpleNamespace(decode=lambda ids, **_: bytes(data[i] for i in ids).decode(errors="replace"))
    assert token_texts(decoder, list(range(5))) == ["", "é", "", "", "€"]


def test_what_ppo_keeps_of_a_rollout(tmp_path):
    from alignlab.models.sampling import Completion
    from alignlab.runtime.run_files import read_rollout_tokens
    from alignlab.training.ppo.experience import Experience, Measured
    from alignlab.training.ppo.rollout_tokens import keep

    def experience(number):
        logps, reference = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -2.0]])
        measured = Measured(logps, reference, *(torch.zeros(1, 2) for _ in range(2)), torch.tensor([[0.1, 0.2]]))
        answer = Completion("mix flour", True, (11, 12))
        advantages = torch.tensor([[1.0, -1.0]])
        return Experience(
            number, [[6, 7]], [answer], torch.tensor([0.75]), torch.ones(1, 2), measured, logps, advantages, None
        )

    for number in (0, 1, 1, 2):  # a stage that resumes repeats a rollout
        keep(tmp_path, experience(number), tiny_tokenizer(), 120)
    kept = read_rollout_tokens(tmp_path)
    assert [row["rollout"] for row in kept] == [0]  # every third one
    assert kept[0] == {
        "rollout": 0, "prompt": "how do", "reward": 0.75, "tokens": ["mix", " flour"],
        "log_ratio": [0.5, 0.0], "kl": [0.1, 0.2], "advantage": [1.0, -1.0],
    }  # fmt: skip
    (shown,) = rollouts.explain_rollouts(tmp_path)
    assert [track["name"] for track in shown["tracks"]] == ["advantage", "log-ratio", "KL"]


def test_the_page_escapes_texts_and_colours_tokens(tmp_path):
    from alignlab.reports.explanations_page import level, write_page

    assert [level(share) for share in (1, 0.41, 0.2, 0.01, -0.2, -1)] == ["p5", "p3", "p1", "zero", "n1", "n5"]
    attack = "<script>alert(1)</script>"
    tracks = [{"name": "attribution", "unit": "", "values": [1.0, -0.5]}]
    about = {"method": attack, "shows": attack, "cannot_show": attack, "figures": {attack: 1.0}}
    tokens = about | {"tokens": [attack, "b"], "tracks": tracks}
    near = about | {"neighbours": [{"similarity": 0.5, "stage": attack, "id": "1", "text": attack}]}
    item = {"prompt": [{"role": "user", "content": attack}], "completion": attack, "explanations": [tokens, near]}
    page = write_page(tmp_path / "page.html", attack, [item], [tokens]).read_text()
    assert attack not in page
    assert 'class="p5"' in page
    assert 'class="n3"' in page


@pytest.mark.parametrize("include_prompt", [False, True])
def test_a_classifier_is_explained_by_the_tokens_of_the_completion(include_prompt):
    """BERT, whose architecture Detoxify has; the score is a logit, read at the first token."""
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertForSequenceClassification

    from alignlab.rewards.classifier import Classifier

    tokenizer = tiny_tokenizer()
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A </s>", "<s> $A </s> $B </s>", ends)
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    settings = BertConfig(vocab_size=len(tokenizer), **size, initializer_range=0.6, num_labels=3, pad_token_id=0)
    judge = Classifier("toxic", BertForSequenceClassification(settings).eval(), tokenizer, 1, False, include_prompt, 64)
    told = integrated_gradients.of_classifier(judge, ask("how", "do"), "mix flour now")
    values, figures = told["tracks"][0]["values"], told["figures"]
    assert [text.strip() for text in told["tokens"]] == ["mix", "flour", "now", "</s>"]
    assert figures["score"] == pytest.approx(
        judge.score([ask("how", "do")], ["mix flour now"], [True]).total[0], abs=1e-5
    )
    assert sum(values) == pytest.approx(figures["score"] - figures["of the baseline"], rel=0.01)
    assert values[3] == 0
    assert figures["completeness error"] <= 0.01


@pytest.mark.parametrize(("better", "worst"), [("lower", "answered"), ("higher", "refused")])
def test_the_worst_prompts_are_those_of_the_measures_direction(better, worst, tmp_path):
    rows = [
        {"prompt": ask("how"), "after": {"completion": text}, "scores": {"jailbreaks/any": value}}
        for text, value in (("refused", 0.0), ("answered", 1.0))
    ]
    (tmp_path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "result.json").write_text(json.dumps({"measurements": [{"name": "jailbreaks/any", "better": better}]}))
    settings = compose("task=explain", "task.measure=jailbreaks/any", "task.items=1").task
    assert chosen(settings, tmp_path) == [(ask("how"), worst)]
