"""Generated tasks: the same from the same seed, with one right answer that code finds."""

import json

import pytest
from suites import context, items

from alignlab.evaluation.measures import capabilities
from alignlab.evaluation.measures.capabilities import CATEGORIES, FORMS, last_number
from alignlab.evaluation.replies import Reply
from alignlab.models.sampling import Completion

RIGHT = {
    "in capital letters only": "THE SEA IS DEEP.",
    "in small letters only": "the sea is deep.",
    "with one word and nothing else": "Deep",
    "with exactly three words and nothing else": "Deep blue water",
    "with exactly two lines": "Deep\n\nBlue",
    "with a list of three items, each on its own line and after a hyphen": "- a\n- b\n- c",
    "with a question": "Is it deep?",
    "with three words that commas separate": "deep, blue, salty",
    "without any comma, in one sentence that ends with a full stop": "It is deep.",
    "as one JSON object with the keys title and text, and nothing else": json.dumps({"title": "Sea", "text": "Deep"}),
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.request)
def test_a_form_holds_for_what_was_asked_and_not_for_everything(form):
    assert form.holds(RIGHT[form.request])
    assert not form.holds("I like the sea, and I like ships. They sail\nfar away.\nVery far!")
    assert not form.holds("")


@pytest.mark.parametrize(
    ("text", "number"),
    [("17", 17), ("5 + 12 = 17.", 17), ("It is -3", -3), ("1,024", 1024), ("none", None), ("3.5", None)],
)
def test_the_last_whole_number_is_the_answer(text, number):
    assert last_number(text) == number


def test_tasks_depend_on_the_seed_alone_and_a_right_reply_counts():
    asked = items("capabilities", "measure.capabilities.items=20")
    assert asked == items("capabilities", "measure.capabilities.items=20")
    fewer = items("capabilities", "measure.capabilities.items=5")
    assert {item.id for item in fewer} < {item.id for item in asked}
    assert [item.kind for item in asked] == ["arithmetic"] * 20 + ["choice"] * 20 + ["format"] * 20
    for item in asked:
        if item.kind == "choice":
            words = [word for kind, words in CATEGORIES.items() if kind in item.turns[-1]["content"] for word in words]
            assert [place for place, word in enumerate(item.choices) if word in words] == [item.facts["answer"]]
        elif item.kind == "arithmetic":
            sum_text = item.turns[-1]["content"].split("What is ")[1].split("?")[0]
            assert eval(sum_text) == item.facts["answer"]
            replies = [Reply(item, (Completion(text, True, ()),)) for text in (f"{item.facts['answer']}", "x")]
            records = list(capabilities.score(replies, context("capabilities")))
            assert [record.values["capabilities/accuracy"] for record in records] == [1, 0]
