"""Rewards that are one thing: a classifier by its label, a function, a reward model with a tokenizer of its own."""

import json

import pytest
import torch
from command import config
from tiny import SPECIAL, WORDS, ask, tiny_model, tiny_tokenizer
from transformers import (
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from alignlab.config import user_function
from alignlab.config.hardware import Hardware
from alignlab.config.reward import ClassifierReward, FunctionReward, ModelReward
from alignlab.errors import Failure
from alignlab.models import fitting
from alignlab.rewards import Scored, load_reward

CPU = Hardware(strategy="single", device="cpu", dtype="float32", micro_batch_size=None, threads=1)
LABELS = {0: "hate", 1: "neutral", 2: "nothate"}
PROMPTS = [ask("how", "do", "i"), ask("bake", "bread"), ask("why")]
TEXTS = ["mix flour and water", "no", ""]
ENDED = [True, True, False]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A classifier of three labels, as people publish them: no pad token, no template."""
    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    config = tiny_model().config
    config.id2label, config.label2id = LABELS, {label: number for number, label in LABELS.items()}
    config.pad_token_id = None
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token, tokenizer.chat_template = None, None
    tokenizer.save_pretrained(folder)
    return folder


def classifier(folder, **changed):
    own = {"label": "nothate", "output": "logit", "include_prompt": False}
    return load_reward(ClassifierReward(kind="classifier", path=str(folder), **{**own, **changed}), {}, CPU)


def by_hand(folder, text, prompt=None):
    """The logits of a text by itself, as transformers computes them."""
    model = LlamaForSequenceClassification.from_pretrained(folder)
    words = ([*prompt.split()] if prompt else []) + text.split()
    vocabulary = {word: place for place, word in enumerate((*SPECIAL, *WORDS))}
    with torch.no_grad():
        return model(torch.tensor([[vocabulary[word] for word in words]])).logits[0]


def test_a_classifiers_class_is_chosen_by_its_name(published):
    for number, label in LABELS.items():
        scores = classifier(published, label=label).score(PROMPTS, TEXTS, ENDED).total
        assert scores[0] == pytest.approx(by_hand(published, TEXTS[0])[number].item(), abs=1e-5)
        assert scores[1] == pytest.approx(by_hand(published, TEXTS[1])[number].item(), abs=1e-5)


def test_probabilities_of_the_classes_add_up_to_one(published):
    said = [
        classifier(published, label=label, output="probability").score(PROMPTS, TEXTS, ENDED).total
        for label in LABELS.values()
    ]
    assert [sum(column) for column in zip(*said, strict=True)] == pytest.approx([1.0] * 3, abs=1e-6)
    expected = by_hand(published, TEXTS[1]).softmax(-1)[0].item()
    assert said[0][1] == pytest.approx(expected, abs=1e-6)


def test_the_completion_alone_is_scored_unless_the_prompt_is_asked_for(published):
    alone = classifier(published)
    assert alone.score(PROMPTS, TEXTS, ENDED).total == alone.score(PROMPTS[::-1], TEXTS, ENDED).total
    both = classifier(published, include_prompt=True).score(PROMPTS, TEXTS, ENDED).total
    expected = by_hand(published, TEXTS[0], "how do i")[2].item()
    assert both[0] == pytest.approx(expected, abs=1e-5)


def test_a_classifier_scores_the_same_in_smaller_batches_where_memory_runs_out(published, monkeypatch):
    monkeypatch.setattr(fitting, "_fitting", {})
    reward, texts, sizes = classifier(published), [*TEXTS[:2], "bake bread"], []
    whole, model = reward.score(PROMPTS, texts, ENDED).total, reward.reward.model
    forward = model.forward

    def limited(input_ids=None, **named):
        sizes.append(len(input_ids))
        if len(input_ids) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(input_ids=input_ids, **named)

    monkeypatch.setattr(model, "forward", limited)
    assert reward.score(PROMPTS, texts, ENDED).total == pytest.approx(whole, abs=1e-5)
    assert sizes == [3, 1, 1, 1]


def test_a_label_that_is_not_there_lists_those_that_are(published):
    with pytest.raises(Failure) as found:
        classifier(published, label="toxic")
    assert str(found.value) == f"reward classifier: {published} has no label 'toxic'; there is hate, neutral, nothate"


def test_a_language_model_is_no_classifier(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(Failure, match="is a LlamaForCausalLM and no classifier"):
        classifier(tmp_path)
    with pytest.raises(Failure, match="cannot be read as a classifier"):
        classifier(tmp_path / "nowhere")


def test_a_text_longer_than_robertas_positions_is_cut(tmp_path):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    shape = RobertaConfig(vocab_size=30, max_position_embeddings=34, **sizes, pad_token_id=0, num_labels=2)
    RobertaForSequenceClassification(shape).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    long = classifier(tmp_path, label="LABEL_1").score(PROMPTS[:2], ["mix " * 90, "mix " * 32], [True] * 2).total
    assert long[0] == pytest.approx(long[1], abs=1e-6)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A package of the user's in the current folder."""
    package = tmp_path / "ownrewards"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "brief.py").write_text(
        "import torch\nfrom .words import count\nfrom os.path import join\n\n"
        "def words(prompts, completions, finished):\n"
        "    return [count(text) + 10 * len(turns) + 100 * end\n"
        "            for turns, text, end in zip(prompts, completions, finished)]\n\n"
        "NUMBER = 3\n"
    )
    (package / "words.py").write_text("def count(text):\n    return len(text.split())\n")
    monkeypatch.chdir(tmp_path)
    return package


def test_a_function_may_compare_with_the_data_sets_own_answers(tmp_path):
    file = tmp_path / "rows.jsonl"
    asked = ["How many apples are left?", "And pears?"]
    rows = [
        {"question": one, "answer": f"So it is so.\n#### {n}"} for one, n in zip(asked, ("1,200", "7"), strict=True)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = config(
        "model=scratch", "dataset=file", f"dataset.path={file}", "dataset.validation=0", "dataset.test=0"
    ).dataset
    settings = FunctionReward(kind="function", function="alignlab.rewards.gsm8k:solved")
    reward = load_reward(settings, {}, CPU, dataset=dataset)
    prompts = [[{"role": "user", "content": one}] for one in (*asked, *asked, "What else?")]
    said = ["#### 1200", "#### 5 no, #### 7.", "1200", "####", "#### 3"]
    assert reward.score(prompts, said, [True] * 5).total == [1.0, 1.0, 0.0, 0.0, 0.0]


def terms(prompts, completions, finished):
    return Scored([3.0], {"a": [1.0], "b": [2.0]}) if finished[0] else Scored([0.0], errors={0: "is cut off"})


def test_a_reward_declares_the_range_of_its_scores():
    solved = FunctionReward(kind="function", function="alignlab.rewards.gsm8k:solved")
    assert load_reward(solved, {}, CPU).score_range == (0.0, 1.0)
    assert load_reward(FunctionReward(kind="function", function="builtins:len"), {}, CPU).score_range is None


def test_a_function_may_return_named_terms_and_errors():
    reward = load_reward(FunctionReward(kind="function", function=f"{__name__}:terms"), {}, CPU)
    assert reward.score(PROMPTS[:1], TEXTS[:1], [True]) == Scored([3.0], {"a": [1.0], "b": [2.0]})
    with pytest.raises(Failure, match=r"reward function: gave no score \(is cut off\) on the text"):
        reward.score(PROMPTS[:1], TEXTS[:1], [False])


def test_a_function_gets_turns_texts_and_ends(mine):
    reward = load_reward(FunctionReward(kind="function", function="ownrewards.brief:words"), {}, CPU)
    assert reward.score(PROMPTS, TEXTS, ENDED).total == [114.0, 111.0, 10.0]
    assert reward.name == "function"
    with pytest.raises(Failure, match=r"ownrewards\.brief:NUMBER is a int and cannot be called"):
        load_reward(FunctionReward(kind="function", function="ownrewards.brief:NUMBER"), {}, CPU)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ownrewards.brief:words", ""),
        ("ownrewards.brief.words", ""),
        ("os.path:join", ""),
        ("math:sqrt", ""),
        ("os.path:joint", "os.path defines no 'joint'"),
        ("ownrewards.brief:word", "ownrewards.brief defines no 'word'"),
        (
            "ownrewards.breif:words",
            "there is no module 'ownrewards.breif' (searched in this folder and in Python's path)",
        ),
        ("ownrewards.brief.words.more:x", "there is no module"),
        ("words", "'words' is not a dotted name"),
        ("own rewards:x", "'own rewards:x' is not a dotted name"),
    ],
)
def test_a_function_is_looked_up_without_being_run(mine, name, said):
    (mine / "__init__.py").write_text("raise SystemExit('imported')\n")
    assert user_function.fault_in(name).startswith(said)
    assert bool(user_function.fault_in(name)) == bool(said)


def test_a_functions_sources_are_the_users_own_files(mine):
    assert user_function.sources("ownrewards.brief:words") == [mine / "brief.py", mine / "words.py"]


def test_packages_of_an_environment_below_this_one_are_installed(mine, monkeypatch):
    """As in an environment with --system-site-packages: its own folder of packages is another one."""
    package = mine.parent / "base" / "lib" / "python3" / "site-packages" / "theirs"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(package.parent))
    (mine / "words.py").write_text("import theirs\nNUMBER = 3\n")
    assert user_function.sources("ownrewards.brief:words") == [mine / "brief.py", mine / "words.py"]


def test_a_function_may_lie_in_folders_without_an_init(mine):
    (mine.parent / "loose" / "inner").mkdir(parents=True)
    (mine.parent / "loose" / "inner" / "brief.py").write_text("def words(prompts, completions): ...\n")
    assert user_function.fault_in("loose.inner.brief:words") == ""


def test_a_reward_models_own_tokenizer_is_the_one_that_counts(tmp_path):
    """Two reward models with the same weights for the same words, under other numbers: the same scores."""
    folders = [tmp_path / "one", tmp_path / "two"]
    torch.manual_seed(0)
    config = tiny_model().config
    config.num_labels = 1
    model = LlamaForSequenceClassification(config)
    model.save_pretrained(folders[0])
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(folders[0])
    turned = {word: len(tokenizer) - 1 - number for word, number in tokenizer.get_vocab().items()}
    rows = model.model.embed_tokens.weight.data.clone()
    model.model.embed_tokens.weight.data = rows.flip(0)
    model.config.pad_token_id = len(tokenizer) - 1
    model.save_pretrained(folders[1])
    other(tokenizer, turned).save_pretrained(folders[1])
    reward = ModelReward(kind="model", path="auto")
    first, second = (
        load_reward(reward, {"reward_model": folder}, CPU).score(PROMPTS, TEXTS, ENDED).total for folder in folders
    )
    assert first == pytest.approx(second, abs=1e-5)
    assert len(set(first)) == 3


def other(tokenizer, vocabulary):
    """The same words under other numbers."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<user>", "<assistant>"],
    )
    made.chat_template = tokenizer.chat_template
    return made


def test_a_reward_model_without_a_template_is_told_how_it_can_be_used(published):
    config = LlamaForSequenceClassification.from_pretrained(published, num_labels=1, ignore_mismatched_sizes=True)
    config.save_pretrained(published / "one")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(published / "one")
    with pytest.raises(Failure, match="no chat template to write a conversation with; use it as a classifier"):
        load_reward(ModelReward(kind="model", path=str(published / "one")), {}, CPU)
    with pytest.raises(Failure, match=r"^reward\.path: auto is the rm stage, and this run has none"):
        load_reward(ModelReward(kind="model", path="auto"), {}, CPU)
