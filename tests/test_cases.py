"""Rows as other frameworks write them: each is read for what it means, or refused in one sentence."""

import json
from collections import Counter

import pytest
from command import config

from alignlab.config.dataset import FileData
from alignlab.data import file_dataset
from alignlab.data.deduplicate import Repeats
from alignlab.data.file_rows import Counts
from alignlab.data.ledger import Tally, check_balance
from alignlab.data.row_chunks import Totals, chunk_rows, chunks
from alignlab.errors import Failure

DEFAULTS = dict(config("dataset=file", "dataset.path=.", "model=scratch").dataset)
ASK, SAY, WORSE = "Why is the sky blue?", "Because of the scattering of light.", "Nobody knows why it is."
PAIR, TURNED = (ASK, [SAY, WORSE], 1.0), (ASK, [WORSE, SAY], 1.0)


def read(folder, rows, name="rows.jsonl", **settings):
    """Return the rows of a file after all steps, with what was counted while they were read."""
    path = folder / name
    content = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(content, encoding="utf-8")
    dataset = FileData(**{**DEFAULTS, "path": (path,), "validation": 0.0, "test": 0.0, **settings})
    totals, keys, find = Totals(dataset), file_dataset.split_keys(dataset), Repeats().find
    prepared, counts = [], Counts(Tally(), [], Counter(), [])
    for chunk in chunks(dataset, totals):
        ledger = {}
        prepared += chunk_rows(dataset, chunk, keys, find, totals.log_of(chunk.split), counts, ledger)
        check_balance(ledger)
    for log in totals.logs.values():
        log.check()
    return prepared, counts


def short(row):
    """Return a row as its prompt (text, or `role: text` lines), its completions and its label."""
    alone = len(row.prompt) == 1 and row.prompt[0]["role"] == "user"
    turns = [turn["content"] if alone else f"{turn['role']}: {turn['content']}" for turn in row.prompt]
    return "\n".join(turns), row.completions, row.label


def turns(*texts, keys=("role", "content"), names=("user", "assistant")):
    return [{keys[0]: names[index % 2], keys[1]: text} for index, text in enumerate(texts)]


def thought(text):
    return f"<think>\nLight scatters.\n</think>\n\n{text}"


ONE = (ASK, [SAY], 1.0)
BOTH = {"prompt": ASK, "response_a": SAY, "response_b": WORSE}
JUDGED = {"instruction": ASK, "input": "", "response1": SAY, "response2": WORSE}
STEERED = {"prompt": ASK, "response_1": SAY, "response_2": WORSE}
READ = {  # a row of each shape, and what it means
    "kto-true": ({"messages": turns(ASK, SAY), "label": True}, [ONE]),
    "kto-false": ({"messages": turns(ASK, SAY), "label": False}, [(ASK, [SAY], 0.0)]),
    "kto-trl": ({"prompt": turns(ASK), "completion": [{"role": "assistant", "content": SAY}], "label": False},
                [(ASK, [SAY], 0.0)]),
    "kto-number": ({"prompt": ASK, "completion": SAY, "label": 0}, [(ASK, [SAY], 0.0)]),
    "weight-0-first": ({"messages": [turns(ASK)[0], {"role": "assistant", "content": SAY, "weight": 1},
                                     *turns("And?"), {"role": "assistant", "content": "x", "weight": 0}]}, [ONE]),
    "scores": ({"prompt": ASK, "responses": [WORSE, SAY], "scores": [0.1, 0.9]}, [PAIR]),
    "scores-text": ({"prompt": ASK, "responses": [WORSE, SAY], "scores": ["0.1", "0.9"]}, [PAIR]),
    "ranks": ({"prompt": ASK, "responses": [WORSE, SAY], "rank": [2, 1]}, [PAIR]),
    "scores-inside": ({"prompt": ASK, "answers": [{"answer": WORSE, "rank": 2}, {"answer": SAY, "rank": 1}]}, [PAIR]),
    "scores-equal": ({"prompt": ASK, "responses": [SAY, WORSE], "scores": [1, 1]}, [(ASK, [SAY, WORSE], 0.5)]),
    "label-0.2": ({"prompt": ASK, "chosen": SAY, "rejected": WORSE, "label": "0.2"}, [(ASK, [WORSE, SAY], 0.8)]),
    "label-0": ({"prompt": ASK, "chosen": SAY, "rejected": WORSE, "label": 0}, [TURNED]),
    "label-0.0": ({"prompt": ASK, "chosen": SAY, "rejected": WORSE, "label": 0.0}, [TURNED]),
    "label-true": ({"prompt": ASK, "chosen": SAY, "rejected": WORSE, "label": True}, [PAIR]),
    "pku": ({"prompt": ASK, "response_0": WORSE, "response_1": SAY, "better_response_id": 1}, [PAIR]),
    "arena-a": ({**BOTH, "winner": "model_a"}, [PAIR]),
    "arena-b": ({**BOTH, "winner": "b"}, [TURNED]),
    "arena-tie": ({**BOTH, "winner": "tie (bothbad)"}, [(ASK, [SAY, WORSE], 0.5)]),
    "arena-columns": ({**BOTH, "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}, [TURNED]),
    "arena-conversations": ({"conversation_a": turns(ASK, SAY), "conversation_b": turns(ASK, WORSE),
                             "winner": "model_a"}, [PAIR]),
    "stack": ({"question": ASK, "response_j": SAY, "response_k": WORSE}, [PAIR]),
    "helpsteer": ({**STEERED, "preference_strength": -2}, [PAIR]),
    "helpsteer-tie": ({**STEERED, "preference_strength": 0}, [(ASK, [SAY, WORSE], 0.5)]),
    "alpacafarm": ({"instruction": ASK, "output_1": SAY, "output_2": WORSE, "preference": 2}, [TURNED]),
    "pandalm": ({**JUDGED, "annotator1": 2, "annotator2": 2, "annotator3": 0},
                [(ASK, [WORSE, SAY], pytest.approx(5 / 6))]),
    "colossal": ({"context": turns(ASK, keys=("from", "content"), names=("human", "")),
                  "chosen": [{"from": "assistant", "content": SAY}],
                  "rejected": [{"from": "assistant", "content": WORSE}]}, [PAIR]),
    "correct": ({"question": ASK, "correct": SAY, "incorrect": WORSE}, [PAIR]),
    "option": ({"Question": ASK, "Positive Option": SAY, "Negative Option": WORSE}, [PAIR]),
    "swift": ({"messages": turns(ASK, SAY), "rejected_response": WORSE}, [PAIR]),
    "swift-query": ({"query": ASK, "response": SAY, "rejected_response": WORSE}, [PAIR]),
    "implicit": ({"chosen": turns(ASK, SAY), "rejected": turns(ASK, WORSE)}, [PAIR]),
    "transcript": ({"prompt": f"\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: {ASK}\n\nAssistant:", "chosen": SAY,
                    "rejected": WORSE}, [(f"user: Hi\nassistant: Hello\nuser: {ASK}", [SAY, WORSE], 1.0)]),
    "guanaco": ({"text": f"### Human: {ASK}### Assistant: {SAY}"}, [ONE]),
    "system": ({"system": "Be kind.", "messages": turns(ASK, SAY)}, [(f"system: Be kind.\nuser: {ASK}", [SAY], 1.0)]),
    "reasoning-content": ({"messages": [*turns(ASK), {"role": "assistant", "reasoning_content": "Light scatters.",
                                                      "content": SAY}]}, [(ASK, [thought(SAY)], 1.0)]),
    "thinking": ({"messages": [*turns(ASK), {"role": "assistant", "thinking": "Light scatters.", "content": SAY}]},
                 [(ASK, [thought(SAY)], 1.0)]),
    "reasoning": ({"question": ASK, "reasoning": "Light scatters.", "answer": SAY}, [(ASK, [thought(SAY)], 1.0)]),
    "xtuner": ({"conversation": [{"system": "Be kind.", "input": ASK, "output": SAY}]},
               [(f"system: Be kind.\nuser: {ASK}", [SAY], 1.0)]),
    "tree": ({"message_tree_id": "1", "tree_state": "ready", "prompt": {"role": "prompter", "text": ASK, "replies": [
        {"role": "assistant", "text": WORSE, "rank": 1, "replies": []},
        {"role": "assistant", "text": SAY, "rank": 0, "replies": []}]}}, [PAIR]),
    "null-columns": ({"prompt": ASK, "completion": SAY, "messages": None, "chosen": None, "rejected": None}, [ONE]),
    "null-structs": ({"prompt": ASK, "completion": SAY, "messages": [{"role": None, "content": None}], "chosen": [None],
                      "rejected": {"role": None}}, [ONE]),
    "capitals": ({"Prompt ": ASK, " Completion": SAY}, [ONE]),
    "list-of-turns": (turns(ASK, SAY), [ONE]),
    "two-user-turns": ({"messages": [*turns(ASK), *turns("Hm?"), {"role": "assistant", "content": SAY}]},
                       [(f"{ASK}\n\nHm?", [SAY], 1.0)]),
    "thumbs": ({"prompt": ASK, "response": SAY, "thumbs_up": "false"}, [(ASK, [SAY], 0.0)]),
    "webgpt": ({"question": {"full_text": ASK}, "answer_0": SAY, "score_0": 0.5, "answer_1": WORSE, "score_1": -0.5},
               [PAIR]),
    "shp": ({"history": ASK, "human_ref_A": WORSE, "human_ref_B": SAY, "labels": 0}, [PAIR]),
    "arena-lists": ({"prompt": f'["{ASK}"]', "response_a": f'["{SAY}"]', "response_b": f'["{WORSE}"]',
                     "winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0}, [PAIR]),
    "winner-name": ({**BOTH, "model_a": "one", "model_b": "two", "winner": "two"}, [TURNED]),
    "vicuna": ({"text": f"USER: {ASK} ASSISTANT: {SAY}</s>"}, [ONE]),
    "chatml": ({"text": f"<|im_start|>user\n{ASK}<|im_end|>\n<|im_start|>assistant\n{SAY}<|im_end|>"}, [ONE]),
    "rendered": ({"instruction": ASK, "output": SAY, "text": f"Below is an instruction that describes a task. Write a "
                  f"response.\n\n### Instruction:\n{ASK}\n\n### Response:\n{SAY}"}, [ONE]),
    "problem": ({"problem": ASK, "solution": SAY}, [ONE]),
    "repeated": ({"prompt": ASK, "chosen": turns(ASK, SAY), "rejected": turns(ASK, WORSE), "messages": turns(ASK, SAY)},
                 [PAIR]),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_row_is_read_for_what_it_means(tmp_path, name):
    row, expected = READ[name]
    rows, counts = read(tmp_path, [row])
    assert [short(row) for row in rows] == expected
    assert not {*counts.unread} - {"message_tree_id", "tree_state"}


REFUSED = {  # a row, the field and the sentence, and the setting that lets it through
    "label-1.7": ({"prompt": ASK, "chosen": SAY, "rejected": WORSE, "label": 1.7}, "label: 1.7 is not a", "label"),
    "label-word": ({"prompt": ASK, "chosen": SAY, "rejected": WORSE, "label": "good"}, "label: 'good' is not", "label"),
    "weight": ({"prompt": ASK, "chosen": SAY, "rejected": WORSE, "weight": -1}, "weight: -1 is not a weight", "weight"),
    "helpfulness": ({"prompt": ASK, "response": SAY, "helpfulness": 0}, "helpfulness: the column rates", "helpfulness"),
    "steps": ({"prompt": ASK, "completions": ["Step one.", "Step two."], "labels": [True, False]}, "labels: labels of",
              "labels"),
    "images": ({"messages": turns(ASK, SAY), "images": ["a.png"]}, "images: the row holds images", "images"),
    "placeholder": ({"query": f"<image>{ASK}", "response": SAY}, "holds <image>, the place of an image", "images"),
    "parts": ({"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": ASK}]},
                            {"role": "assistant", "content": SAY}]}, "a turn holds images", "images"),
    "audio": ({"messages": turns(ASK, SAY), "audios": ["a.wav"]}, "audios: the row holds audios", "audios"),
    "before-after": ({"prompt": ASK, "infer_before": "word " * 40, "infer_after": "other " * 40},
                     "infer_before: no format reads", "infer_before,infer_after"),
    "two-answers": ({"prompt": ASK, "response_a": SAY, "response_b": WORSE}, "response_a: no format reads",
                    "response_a,response_b"),
    "completions": ({"text": "Rate the answers.", "completions": [SAY, WORSE]}, "completions: no format reads",
                    "completions"),
    "implicit": ({"chosen": SAY, "rejected": WORSE}, "and the pair has no prompt", None),
    "spans": ({"messages": [*turns(ASK), {"role": "assistant", "content": SAY, "train_detail": [{"train": False}]}]},
              "parts of a turn cannot be left out", "train_detail"),
    "rated": ({"instruction": ASK, "output": SAY, "quality": "low"}, "quality: the column rates", "quality"),
    "scores-turned": ({"prompt": ASK, "chosen": SAY, "rejected": WORSE, "chosen_score": 1, "rejected_score": 2},
                      "rejected_score: the rejected answer has the higher score", None),
    "winner": ({**BOTH, "winner": "nobody"}, "winner: 'nobody' names neither answer", None),
    "keys": ({"messages": [{"toy_input": ASK, "toy_output": SAY}]}, "a turn has the keys toy_input, toy_output", None),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_that_would_lose_its_meaning_is_refused_in_one_sentence(tmp_path, name):
    error = check_refused(tmp_path, *REFUSED[name])
    assert "dataset.ignore=[" in error or not REFUSED[name][2]


def check_refused(tmp_path, row, message, ignore):
    """Check that a row is refused in one sentence, and read where the fields in `ignore` are left out; return it."""
    with pytest.raises(Failure) as raised:
        read(tmp_path, [row])
    assert message in str(raised.value)
    assert "rows.jsonl:1" in str(raised.value)
    assert "\n" not in str(raised.value)
    if ignore:
        rows, _ = read(tmp_path, [row], ignore=tuple(ignore.split(",")))
        assert len(rows) == 1
        assert not any("<image>" in text for text in rows[0].texts())
    return str(raised.value)


def test_a_json_object_with_a_field_twice_is_a_fault(tmp_path):
    with pytest.raises(Failure, match=r"rows\.jsonl:1: prompt: the field stands twice in one object"):
        read(tmp_path, '{"prompt": "A?", "prompt": "C?", "completion": "B"}\n')
    with pytest.raises(Failure, match=r"rows\.json:1: the field 'prompt' stands twice in one object; remove one"):
        read(tmp_path, '[{"prompt": "A?", "prompt": "C?", "completion": "B"}]', "rows.json")


def test_rows_that_are_single_turns_and_lists_of_rows_say_what_to_do(tmp_path):
    with pytest.raises(Failure, match="each row is one turn"):
        read(tmp_path, turns(ASK, SAY))
    with pytest.raises(Failure, match="lists inside an object: train, test; write each list as a file"):
        read(tmp_path, [{"train": [{"prompt": ASK}], "test": [{"prompt": ASK}]}])


def test_the_only_answer_of_weight_0_is_left_out_and_counted(tmp_path):
    left_out = {"messages": [*turns(ASK), {"role": "assistant", "content": SAY, "weight": 0}]}
    rows, counts = read(tmp_path, [left_out, {"messages": turns("How?", SAY)}])
    assert [short(row) for row in rows] == [("How?", [SAY], 1.0)]
    assert sum(counts.tally.dropped.values()) == 1


def test_the_strength_of_a_preference_is_its_weight(tmp_path):
    rows, _ = read(tmp_path, [{**STEERED, "preference_strength": "3"}])
    assert [(short(row), row.weight) for row in rows] == [(TURNED, 3.0)]


def test_flat_messages_of_a_tree_become_conversations(tmp_path):
    flat = [
        {"message_id": "1", "parent_id": None, "role": "prompter", "text": ASK},
        {"message_id": "2", "parent_id": "1", "role": "assistant", "text": WORSE, "rank": 1},
        {"message_id": "3", "parent_id": "1", "role": "assistant", "text": SAY, "rank": 0},
        {"message_id": "4", "parent_id": "3", "role": "prompter", "text": "Thanks!"},
        {"message_id": "5", "parent_id": "4", "role": "assistant", "text": "You are welcome."},
    ]
    rows, counts = read(tmp_path, flat)
    later = f"user: {ASK}\nassistant: {SAY}\nuser: Thanks!"
    assert [short(row) for row in rows] == [PAIR, (later, ["You are welcome."], 1.0)]
    assert counts.tally.rows_in == 5


def test_what_conversations_lack_is_counted(tmp_path):
    rows = [{"messages": turns(ASK, SAY, "And?")}, {"messages": [*turns("A?"), *turns("B?"), *turns("", "C")[1:]]}]
    _, counts = read(tmp_path, rows)
    assert counts.tally.notes["a conversation that ends with the user, read as a prompt"] == 1
    assert counts.tally.notes["turns of one speaker in a row, joined"] == 1


def test_metadata_is_named_and_the_row_is_kept(tmp_path):
    row = {"prompt": ASK, "completion": SAY, "source": "a long name of a web site", "n": 3}
    rows, counts = read(tmp_path, [row] * 2, deduplicate="none")
    assert len(rows) == 2
    assert counts.unread == {"source": 2, "n": 2}


def test_a_file_may_mix_formats_and_an_incomplete_row_is_a_reject(tmp_path):
    rows = [{"prompt": ASK, "completion": SAY}] * 3 + [{"messages": turns("How?", SAY)}, {"prompt": "Lacking?"}]
    kept, counts = read(tmp_path, rows, max_rejects=0.5, deduplicate="none")
    assert len(kept) == 4
    assert counts.formats == ["prompt_completion", "messages"]
    assert counts.tally.dropped["completion: the field is missing"] == 1


def test_labels_weights_and_turns_are_read_from_the_text_of_a_table(tmp_path):
    table = "prompt,chosen,rejected,label,weight\nWhy?,So it is.,No idea at all.,0.2,3\nHow?,Well.,Badly.,,\n"
    rows, _ = read(tmp_path, table, "rows.csv")
    assert [(row.completions[0], row.label, row.weight) for row in rows] == [
        ("No idea at all.", 0.8, 3.0),
        ("Well.", 1.0, 1.0),
    ]
    cell = json.dumps(turns(ASK, SAY)).replace('"', '""')
    for written in (f'"{cell}"', f'"{turns(ASK, SAY)}"'):
        rows, _ = read(tmp_path, f"messages\n{written}\n", "turns.csv")
        assert [short(row) for row in rows] == [ONE]
