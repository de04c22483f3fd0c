"""The formats of rows: each is detected by its fields and parsed to the same draft."""

import json

import pytest
from command import config

from alignlab.data import file_dataset
from alignlab.data.row_fields import is_misspelt
from alignlab.data.row_formats import FORMATS, Draft, detect
from alignlab.errors import Failure


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


ASK, SAY, WORSE = [user("Why?")], "So.", "No."
SYSTEM = {"role": "system", "content": "Be kind."}
EXAMPLES = [  # a row, its format, and the number of its completions
    ({"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."}, "hh_rlhf", 2),
    ({"chosen": [*ASK, bot(SAY)], "rejected": [*ASK, bot(WORSE)]}, "hh_rlhf", 2),
    ({"prompt": "Why?", "completion": SAY}, "prompt_completion", 1),
    ({"prompt": "Why?", "response": SAY}, "prompt_completion", 1),
    ({"prompt": ASK, "completion": [bot(SAY)]}, "prompt_completion", 1),
    ({"question": "Why?", "answer": SAY}, "prompt_completion", 1),
    ({"prompt": "Why?", "chosen": SAY, "rejected": WORSE}, "preference", 2),
    ({"prompt": ASK, "chosen": [bot(SAY)], "rejected": [bot(WORSE)]}, "preference", 2),
    ({"prompt": "Why?", "chosen": [*ASK, bot(SAY)], "rejected": [*ASK, bot(WORSE)]}, "preference", 2),
    ({"messages": [*ASK, bot(SAY)]}, "messages", 1),
    ({"messages": [{"role": "user", "content": [{"type": "text", "value": "Why?"}]}, bot(SAY)]}, "messages", 1),
    ({"messages": ASK}, "messages", 0),
    ({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": SAY}]}, "sharegpt", 1),
    ({"instruction": "Why?", "input": "", "output": SAY}, "alpaca", 1),
    ({"instruction": "Why?", "context": None, "response": SAY, "category": "qa"}, "alpaca", 1),
    ({"conversations": [{"from": "human", "value": "Why?"}], "chosen": {"from": "gpt", "value": SAY},
      "rejected": {"from": "gpt", "value": WORSE}}, "sharegpt_preference", 2),
    ({"chosen_messages": [*ASK, bot(SAY)], "rejected_messages": [*ASK, bot(WORSE)]}, "messages_preference", 2),
    ({"prompt": "Why?", "completions": [SAY, WORSE, "Never."]}, "ranking", 3),
    ({"transcript": "\n\nHuman: Why?\n\nAssistant: So.", "rating": 1.0}, "transcript", 1),
    ({"instruction": "Why?", "instances": [{"input": "", "output": SAY}]}, "self_instruct", 1),
    ({"prompt": "Why?"}, "prompts", 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "name", "count"), EXAMPLES, ids=[f"{name}-{i}" for i, (_, name, _) in enumerate(EXAMPLES)]
)
def test_a_format_is_detected_and_parsed_to_the_same_draft(row, name, count):
    row_format = detect([row])
    assert row_format.name == name
    assert row_format.parse(row) == [Draft(ASK, [SAY, WORSE, "Never."][:count])]


def test_the_prompt_of_a_dialogue_asks_for_a_summary_and_text_has_no_prompt():
    (draft,) = detect([{"dialogue": "#P1#: Hi", "summary": "They meet.", "id": "1"}]).parse(
        {"dialogue": "#P1#: Hi", "summary": "They meet."}
    )
    assert draft.prompt[0]["content"].endswith("conversation.\n\n#P1#: Hi")
    assert draft.completions == ["They meet."]
    assert detect([{"text": "Once."}]).parse({"text": "Once."}) == [Draft([], ["Once."])]


def test_alpaca_keeps_input_system_and_history():
    row = {"instruction": "Add.", "input": "1 2", "output": "3", "system": "Be kind.", "history": [["Hi", "Hello"]]}
    assert FORMATS["alpaca"].parse(row)[0].prompt == [SYSTEM, user("Hi"), bot("Hello"), user("Add.\n\n1 2")]


@pytest.mark.parametrize(
    ("row", "rename"),
    [
        ({"promt": "How?", "chosen": "So.", "rejected": "No."}, "rename it to prompt"),
        ({"prompt": "How?", "chozen": "So.", "rejected": "No."}, "rename it to chosen"),
        ({"instruction": "Do it.", "outptu": "Done."}, "rename it to output"),
        ({"promt": "How?", "completion": "So."}, "rename promt to prompt"),
        ({"mesages": [{"role": "user", "content": "How?"}]}, "rename mesages to messages"),
    ],
)
def test_a_misspelt_field_is_named_with_the_field_that_was_meant(row, rename, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text((json.dumps(row) + "\n") * 2, encoding="utf-8")  # a single object may be a list of rows by a name
    with pytest.raises(Failure, match=rename):
        file_dataset.read_report(config("task=prepare", "dataset=file", f"dataset.path={path}").dataset)


@pytest.mark.parametrize(
    ("name", "known", "misspelt"),
    [
        ("promt", "prompt", True),
        ("prmopt", "prompt", True),
        ("prompts", "prompt", False),
        ("label", "labels", False),
        ("prompt_id", "prompt", False),
        ("pos", "pot", False),
    ],
)
def test_one_letter_makes_a_misspelt_name(name, known, misspelt):
    assert is_misspelt(name, known) is misspelt
