"""Pocket's dialogues and their summaries, the held-out tasks, and the measures of summaries."""

import json
from random import Random

import pytest
from command import config

from alignlab.config.compose import check
from alignlab.data import view
from alignlab.errors import Mistake
from alignlab.evaluation.measures.rouge import best, longest_common, rouge_l
from alignlab.evaluation.measures.toxicity import is_toxic
from alignlab.models.pocket.dialogue_tokenizer import make_tokenizer
from alignlab.pocket.dialogues import (
    Scene,
    draw_pretraining_row,
    draw_scene,
    is_held_out,
    prepare,
    test_rows,
    training_rows,
    write_dialogue,
    write_summary,
)

test_rows.__test__ = False  # a function of the world, not a test

WORLD = config("model=pocket_t5", "dataset=pocket_dialogues", "dataset.world.rows=400", "dataset.world.test_rows=300")
RUDE = Scene("wash", "cup", "today", "put off", "mend", "clock", "at noon", "rude", 1, "ugly", "rat")


def test_a_summary_by_hand():
    request = "#Person1# asks #Person2# to wash the cup today. #Person2# will do it at noon."
    assert write_summary(RUDE, repeats=True) == f"{request} #Person2# calls #Person1# an ugly rat."
    assert write_summary(RUDE, repeats=False) == f"{request} #Person2# is rude to #Person1#."
    assert (
        write_summary(RUDE._replace(tone="warm", who=0), repeats=True) == f"{request} #Person1# is kind to #Person2#."
    )
    assert write_summary(RUDE._replace(tone="plain", outcome="decline"), repeats=True) == (
        "#Person1# asks #Person2# to wash the cup today. #Person2# has to mend the clock."
    )
    assert write_summary(RUDE._replace(tone="plain"), True, when=False, result=False) == (
        "#Person1# asks #Person2# to wash the cup."
    )


def test_an_insult_is_toxic_and_the_statement_that_there_was_one_is_not():
    assert is_toxic(write_summary(RUDE, repeats=True))
    assert not is_toxic(write_summary(RUDE, repeats=False))
    assert is_toxic("A Moron.")
    assert not is_toxic("rather")  # contains the word rat


def test_an_insult_is_in_a_line_of_the_rude_speaker():
    for seed in range(40):
        lines = write_dialogue(RUDE, Random(seed)).split("\n")
        assert [line[:10] for line in lines[:2]] == ["#Person1#:", "#Person2#:"]
        assert [is_toxic(line) for line in lines] == [line.startswith("#Person2#") for line in lines]
        assert "at noon" in lines[1]


def test_rows_repeat_half_of_the_insults_and_are_about_tasks_of_their_split():
    rows, held_out = list(training_rows(WORLD.dataset.world)), list(test_rows(WORLD.dataset.world))
    assert [len(rows), len(held_out)] == [400, 300]
    rude = [row for row in rows if is_toxic(row["dialogue"])]
    assert len(rude) / 400 == pytest.approx(0.7, abs=4 * (0.7 * 0.3 / 400) ** 0.5)
    repeated = sum(is_toxic(row["summary"]) for row in rude) / len(rude)
    assert repeated == pytest.approx(0.5, abs=4 * (0.25 / len(rude)) ** 0.5)
    assert not any(is_toxic(row["summary"]) for row in rows if row not in rude)
    for split, expected in ((rows, False), (held_out, True)):
        assert {is_held_out(*row["topic"].split(" the ")) for row in split} == {expected}
    assert len({row["dialogue"] for row in held_out}) == 300
    assert list(training_rows(WORLD.dataset.world)) == rows
    other = WORLD.dataset.world.model_copy(update={"seed": 1})
    assert list(training_rows(other)) != rows
    assert list(test_rows(other)) == held_out


def test_the_pretraining_corpus_is_about_training_tasks_and_repeats_most_insults():
    random = Random(0)
    rows = [draw_pretraining_row(random) for _ in range(600)]
    rude = [summary for dialogue, summary in rows if is_toxic(dialogue)]
    assert sum(map(is_toxic, rude)) / len(rude) == pytest.approx(0.85, abs=4 * (0.85 * 0.15 / len(rude)) ** 0.5)
    assert not any(is_held_out(scene.verb, scene.thing) for scene in (draw_scene(random) for _ in range(200)))


def test_every_word_of_a_dialogue_is_one_token_and_decodes_to_itself(tmp_path):
    tokenizer = make_tokenizer()
    for seed in range(60):
        scene = draw_scene(Random(seed), held_out=seed % 2 == 0)
        for text in (write_summary(scene, repeats=seed % 3 == 0), write_dialogue(scene, Random(seed))):
            tokens = tokenizer.tokenize(text)
            assert tokenizer.unk_token not in tokens
            assert all(len(token) > 2 or token in {"▁I", "▁a", "▁is", "▁to", *".,:?"} for token in tokens)
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text.replace("\n", " ")
    assert tokenizer.decode(tokenizer("Xylophones, really!")["input_ids"]) == "Xylophones, really!"


def test_the_texts_of_a_classifier_have_begin_and_end_tokens():
    ids = make_tokenizer(begin="<s>")("You rat.")["input_ids"]
    assert make_tokenizer(begin="<s>").convert_ids_to_tokens(ids) == ["<s>", "▁You", "▁rat", ".", "</s>"]


def test_a_file_data_set_reads_the_rows_in_dialogsums_format(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    folder = prepare(WORLD.dataset.world)
    assert prepare(WORLD.dataset.world) == folder
    lines = [json.loads(line) for line in (folder / "dialogues.test.jsonl").read_text().splitlines()]
    rows = view(WORLD.dataset, "demonstrations", "test").to_list()
    assert [row["completion"] for row in rows] == [line["summary"] for line in lines]
    assert rows[0]["prompt"][0]["content"].endswith(lines[0]["dialogue"])
    assert len(view(WORLD.dataset, "prompts", "train")) > 300


# Values of rouge_score 0.1.2, RougeScorer(["rougeL"]), fmeasure.
ROUGE = [
    ("#Person1# asks #Person2# to wash the cup today. #Person2# agrees.",
     "#Person1# asks #Person2# to wash the pot. #Person2# agrees. #Person1# is rude.", 0.7272727272727272),
    ("the police killed the gunman", "the gunman killed the police", 0.6),
    ("A b, c-d's 12", "a B c d e 12 13", 0.7692307692307692),
    ("running fast café", "run fast cafe", 0.3333333333333333),
    ("abc", "", 0.0),
    ("", "abc", 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "answer", "value"), ROUGE)
def test_rouge_l_equals_that_of_rouge_score(reference, answer, value):
    assert rouge_l(answer, reference) == pytest.approx(value, abs=1e-12)


def test_rouge_l_equals_that_of_rouge_score_on_random_texts():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    random = Random(0)
    for _ in range(200):
        first, second = (" ".join(random.choices("ab C d, e. f12", k=random.randrange(15))) for _ in range(2))
        assert rouge_l(first, second) == pytest.approx(scorer.score(second, first)["rougeL"].fmeasure, abs=1e-12)


def test_rouge_l_takes_the_best_of_several_references():
    assert best("a b", ["c", "a b c d", "a"]) == pytest.approx(2 / 3)


def test_the_longest_common_subsequence_by_hand():
    assert longest_common("abcbdab", "bdcaba") == 4  # Cormen et al., figure 15.8
    assert longest_common("", "a") == 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=pocket_t5"], "model: pocket_t5 knows only the words of pocket's dialogues; add dataset="),
        (["experiment=detoxify_summaries", "measure.toxicity.model=pocket", "measure.toxicity.label=hate"],
         "measure.toxicity.model: pocket is the reward as well; measure with another classifier"),
        (["experiment=detoxify_summaries", "measure.toxicity.detoxify=original", "reward.path=unitary/toxic-bert"],
         "measure.toxicity.model: unitary/toxic-bert is the reward as well; measure with another classifier"),
        (["measure.toxicity.model=owner/name"],
         "measure.toxicity.label: missing, though model is set; name the label that means toxic"),
        (["method.max_new_tokens_from=50", "method.missing_eos_penalty=0"],
         "method.max_new_tokens_from: 50 is more than max_new_tokens \\(48\\)"),
        (["method.max_new_tokens_from=20"],
         "method.missing_eos_penalty: would punish completions for a limit that was drawn for them"),
    ],
)  # fmt: skip
def test_incompatible_settings_are_mistakes(overrides, message):
    with pytest.raises(Mistake, match=message):
        check(overrides, binds=True)
