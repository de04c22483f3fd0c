"""An answer that was cut off stays known as such, from its label to the loss: no end token is learned after it."""

import json

import pytest
from command import config
from tiny import ask, tiny_model, tiny_tokenizer

from alignlab import data
from alignlab.chat import encode_prompt
from alignlab.constitutional import ai_labels
from alignlab.data.qualifiers import qualify
from alignlab.data.row_fields import Draft, RowFields
from alignlab.methods import dpo, sft
from alignlab.models.learned_tokens import earlier_answers
from alignlab.models.truncation import encode_within
from alignlab.preferences.agreement import Ranked
from alignlab.preferences.write_dataset import pair_rows
from alignlab.runtime.stage_run import Run
from alignlab.tasks.prepare import write_rows
from alignlab.training import trainer

PROMPT = ask("how", "do", "i", "bake")


@pytest.fixture(autouse=True)
def _temporary_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))


def rows_of(folder, rows, view, *more):
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ("model=scratch", "dataset=file", f"dataset.path={file}", "dataset.validation=0", "dataset.test=0")
    made = config(*settings, *more)
    return made, data.view(made.dataset, view, "train")


def test_a_completion_that_was_cut_off_has_no_end_token():
    tokenizer = tiny_tokenizer()
    _, (whole, cut) = encode_within(tokenizer, PROMPT, ["mix flour", "mix water"], 64, finished=[True, False])
    assert tokenizer.decode(whole.completion) == "mix flour </s>"
    assert tokenizer.decode(cut.completion) == "mix water"


def test_dpo_learns_no_end_after_an_answer_that_was_cut_off(tmp_path):
    pair = {"prompt": "how do i bake", "chosen": "mix flour", "rejected": "mix water and"}
    made, _ = rows_of(tmp_path, [pair | {"finished": [True, False]}], "pairs", "method=dpo")
    tokenizer = tiny_tokenizer()
    (row,) = dpo.tokenise_pairs(Run(made, made.method, {}, tmp_path, None), tokenizer)["train"]
    assert tokenizer.decode(row["chosen_ids"]) == "mix flour </s>"
    assert tokenizer.decode(row["rejected_ids"]) == "mix water and"


def test_views_say_who_was_cut_off_where_any_was(tmp_path):
    pair = {"prompt": "how do i bake", "chosen": "mix flour", "rejected": "mix water and"}
    _, whole = rows_of(tmp_path, [pair | {"finished": [True, True]}], "pairs")
    assert not {"chosen_finished", "rejected_finished", "cut_off"} & set(whole.column_names)
    ranking = {"prompt": "why", "completions": ["stop", "now", "no"], "finished": [False, True, True]}
    _, rows = rows_of(tmp_path, [ranking], "pairs")
    assert [(row["chosen_finished"], row["rejected_finished"]) for row in rows] == [
        (False, True), (False, True), (True, True),
    ]  # fmt: skip
    answer = {"prompt": "why", "completion": "stop", "finished": False}
    _, rows = rows_of(tmp_path, [answer, answer | {"prompt": "how", "finished": True}], "demonstrations")
    assert list(rows["finished"]) == [False, True]


def test_a_pair_that_is_turned_round_takes_its_ends_along():
    draft = qualify(Draft(PROMPT, ["first", "second"]), RowFields({"label": 0.2, "finished": [True, False]}))
    assert (draft.completions, draft.cut_off) == (["second", "first"], (0,))


@pytest.mark.parametrize("value", [True, [True], "yes", [1, 0], None])
def test_a_column_of_another_form_is_not_read(value):
    fields = RowFields({"finished": value})
    assert qualify(Draft(PROMPT, ["first", "second"]), fields).cut_off == ()
    assert "finished" not in fields.read


def test_a_written_data_set_keeps_the_ends(tmp_path):
    row = {"id": "", "kind": "", "made_by": "", "prompt": PROMPT, "completions": ["yes", "no"], "cut_off": [1]}
    write_rows([row], tmp_path)
    assert json.loads((tmp_path / "pairs.jsonl").read_text())["finished"] == [True, False]
    talk = [*PROMPT, {"role": "assistant", "content": "no"}, *PROMPT]
    write_rows([row | {"prompt": talk, "completions": ["yes"], "cut_off": [], "context": [-2]}], tmp_path)
    messages = json.loads((tmp_path / "demonstrations.jsonl").read_text())["messages"]
    assert [turn.get("weight") for turn in messages] == [None, 0, None, None]


@pytest.mark.parametrize(("label", "ends"), [(0.8, (True, False)), (0.2, (False, True))])
def test_an_ai_label_takes_the_ends_of_its_answers_along(label, ends):
    row = {"prompt": PROMPT, "first": "yes", "second": "no", "finished": [True, False], "verdict": {"label": label}}
    made = ai_labels.pair(row)
    assert (made["chosen_finished"], made["rejected_finished"]) == ends


def test_the_factorys_pairs_say_who_was_cut_off():
    answers = [{"text": "yes", "finished": False}, {"text": "no", "finished": True}, {"text": "now", "finished": True}]
    row = {"id": "p", "kind": "", "prompt": PROMPT, "answers": answers}
    shares = {(0, 1): 0.9, (0, 2): 0.2, (1, 2): 0.8}
    made = list(pair_rows(row, Ranked([2, 0, 1], shares)))
    assert [pair.get("finished") for pair in made] == [[False, True], [True, False], None]


def test_an_earlier_answer_of_weight_0_stays_context(tmp_path):
    turns = [
        *ask("how"),
        {"role": "assistant", "content": "no", "weight": 0},
        *ask("why"),
        {"role": "assistant", "content": "yes"},
        *ask("do", "i"),
        {"role": "assistant", "content": "stop"},
    ]
    _, rows = rows_of(tmp_path, [{"messages": turns}], "demonstrations")
    tokenizer, row = tiny_tokenizer(), rows[0]
    assert row["context"] == [-4]
    prompt = encode_prompt(tokenizer, row["prompt"])
    learned = earlier_answers(tokenizer, row["prompt"], prompt, row["context"])
    assert tokenizer.decode([token for token, kept in zip(prompt, learned, strict=True) if kept]) == "yes </s>"
    _, rows = rows_of(tmp_path, [{"messages": turns[2:]}], "demonstrations")
    assert "context" not in rows.column_names


def test_sft_learns_every_answer_or_the_last(tmp_path, monkeypatch):
    turns = [*ask("how"), {"role": "assistant", "content": "no"}, *ask("why"), {"role": "assistant", "content": "yes"}]
    kept = {}
    monkeypatch.setattr(trainer, "fit", lambda run, kind, model, tokenizer, settings, rows, **_: kept.update(rows))
    for learn, expected in (("all", "no </s> yes </s>"), ("last", "yes </s>")):
        more = ("method=sft", f"dataset.learn={learn}", "hardware.device=cpu", "method.batch_size=1")
        made, _ = rows_of(tmp_path, [{"messages": turns}], "demonstrations", *more)
        tokenizer = tiny_tokenizer()
        sft.train_decoder(Run(made, made.method, {}, tmp_path, None), tiny_model(), tokenizer)
        row = kept["train"][0]
        learned = [
            token for token, is_learned in zip(row["input_ids"], row["completion_mask"], strict=True) if is_learned
        ]
        assert tokenizer.decode(learned) == expected
