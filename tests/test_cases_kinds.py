"""More rows as other frameworks write them, by the kind of what could be lost: read for what they mean, or refused."""

import json
from decimal import Decimal

import pytest
from test_cases import ASK, ONE, PAIR, SAY, TURNED, WORSE, check_refused, read, short, thought, turns

from alignlab.data.qualifiers import SAME_SCORE, read_number
from alignlab.data.transcripts import WITH_MARKERS
from alignlab.errors import Failure

QUESTION = turns(ASK)[0]
BOTH = {"prompt": ASK, "chosen": SAY, "rejected": WORSE}
TIE = (ASK, [SAY, WORSE], 0.5)
KIND = (f"system: Be kind.\nuser: {ASK}", [SAY], 1.0)


def answer(text=SAY, **fields):
    """Return an answer's turn with further fields."""
    return {"role": "assistant", "content": text, **fields}


def parts(role, *texts):
    """Return a turn as Gemini writes it."""
    return {"role": role, "parts": [{"text": text} for text in texts]}


READ = {
    "openai-preference": ({"input": {"messages": [QUESTION], "tools": []}, "preferred_output": [answer()],
                           "non_preferred_output": [answer(WORSE)]}, PAIR),
    "gemini": ({"systemInstruction": parts("system", "Be kind."),
                "contents": [parts("user", ASK), parts("model", SAY)]}, KIND),
    "gemini-thought": ({"contents": [parts("user", ASK), {"role": "model", "parts": [
        {"text": "Light scatters.", "thought": True}, {"text": SAY}]}]}, (ASK, [thought(SAY)], 1.0)),
    "palm": ({"input_text": ASK, "output_text": SAY}, ONE),
    "bedrock": ({"system": [{"text": "Be kind."}], "messages": [
        {"role": "user", "content": [{"text": ASK}]}, {"role": "assistant", "content": [{"text": SAY}]}]}, KIND),
    "cohere": ({"messages": [{"role": "System", "content": "Be kind."}, {"role": "User ", "content": ASK},
                             {"role": "Chatbot", "content": SAY}]}, KIND),
    "anthropic": ({"system": "Be kind.", "messages": [QUESTION, answer([
        {"type": "thinking", "thinking": "Light scatters."}, {"type": "text", "text": SAY}])]},
        (KIND[0], [thought(SAY)], 1.0)),
    "aya": ({"inputs": ASK, "targets": SAY}, ONE),
    "camel": ({"systemPrompt": "Be kind.", "prompt": ASK, "completion": SAY}, KIND),
    "camel-pair": ({"Prompt:": ASK, "chosenResponse": SAY, "rejectedResponse": WORSE}, PAIR),
    "generations": ({"instruction": ASK, "generations": [WORSE, SAY], "ratings": [1, 5]}, PAIR),
    "votes": ({"question": ASK, "answers": [{"text": WORSE, "pm_score": 0}, {"text": SAY, "pm_score": 7}]}, PAIR),
    "summaries": ({"info": {"id": "t3_1", "subreddit": "sky", "title": ASK, "post": "It is blue.", "site": None},
                   "summaries": [{"text": WORSE, "policy": "sup1", "note": "ok"}, {"text": SAY, "policy": "ref"}],
                   "choice": 1, "worker": "w1", "split": "train", "extra": {"confidence": 8}},
                  (f"SUBREDDIT: sky\n\nTITLE: {ASK}\n\nPOST: It is blue.\n\nTL;DR:", [SAY, WORSE], 1.0)),
    "summaries-article": ({"info": {"id": "a1", "article": "The sky is blue.", "post": None}, "choice": 0,
                           "summaries": [{"text": SAY, "policy": "ref"}, {"text": WORSE, "policy": "sup1"}]},
                          ("ARTICLE: The sky is blue.\n\nTL;DR:", [SAY, WORSE], 1.0)),
    "eli5": ({"q_id": "5", "title": ASK, "selftext": "At noon.", "document": "", "subreddit": "explainlikeimfive",
              "answers": {"a_id": ["x", "y", "z"], "text": [WORSE, SAY, "Rays."], "score": [1, 9, 4]}},
             (f"{ASK}\n\nAt noon.", [SAY, "Rays.", WORSE], 1.0)),
    "eli5-title": ({"title": ASK, "selftext": "", "answers": {"text": [SAY, WORSE], "score": [3, 3]}}, TIE),
    "safer": ({"prompt": ASK, "response_0": SAY, "response_1": WORSE, "safer_response_id": 1}, TURNED),
    "status-tie": ({**BOTH, "status": "tie"}, TIE),
    "tree-tie": ({"message_tree_id": "1", "tree_state": "x", "prompt": {"role": "prompter", "text": ASK, "replies": [
        {"role": "assistant", "text": text, "rank": 0, "replies": []} for text in (SAY, WORSE)]}}, TIE),
    "chatml-prompt": ({"prompt": f"<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n{ASK}<|im_end|>\n"
                       "<|im_start|>assistant\n", "completion": SAY}, KIND),
    "no-fault": ({"prompt": ASK, "response": SAY, "is_toxic": False, "status": "approved"}, ONE),
    "margin": ({**BOTH, "margin": 0.5}, PAIR),
    "caption": ({"prompt": ASK, "completion": SAY, "image_caption": "a sky", "image_id": 7}, ONE),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_row_is_read_for_what_it_means(tmp_path, name):
    row, expected = READ[name]
    rows, _ = read(tmp_path, [row])
    assert [short(row) for row in rows] == [expected]


OPTIONS = {"question": ASK, "options": {"A": "Air", "B": "Sea"}, "answer": "A"}
TOOL = [{"function": {"name": "f", "arguments": "{}"}}]
REFUSED = {  # a row, the sentence, and the fields that dataset.ignore has to name
    "turned-ratings": ({**BOTH, "chosen_avg_rating": 1, "rejected-avg-rating": 2}, "the rejected answer has the", None),
    "turned-list": ({**BOTH, "scores": [0.2, 0.9]}, "scores: the rejected answer has the higher score", "scores"),
    "turned-margin": ({**BOTH, "margin": -1}, "margin: the rejected answer has the higher score", "margin"),
    "best-index": ({"prompt": ASK, "responses": [WORSE, SAY], "best_index": 1}, "may say which answer", "best_index"),
    "list-label": ({"prompt": ASK, "responses": [WORSE, SAY], "label": 1}, "label: the field may say which", "label"),
    "items-correct": ({"question": ASK, "answers": [{"text": WORSE, "is_correct": False},
                                                    {"text": SAY, "is_correct": True}]},
                      "answers.is_correct: the field may say which answer is better", "answers.is_correct"),
    "turn-rating": ({"messages": [QUESTION, answer(rating=-1)]}, "messages.rating: the field rates", "rating"),
    "turn-annotation": ({"messages": [QUESTION, answer(annotation={"rating": -1})]}, "the field rates", "annotation"),
    "turn-masked": ({"messages": [QUESTION, answer(masked=True)]}, "parts of a turn cannot be left out", "masked"),
    "turn-channel": ({"messages": [QUESTION, answer("Hm.", channel="analysis"), answer(channel="final")]},
                     "the turn is in the channel 'analysis'", "channel"),
    "tool-call": ({"messages": [QUESTION, answer(tool_calls=TOOL)]}, "the turn calls a tool", "tool_calls"),
    "joined-weights": ({"messages": [QUESTION, answer(WORSE, weight=0), answer()]}, "ignore=[weight]", "weight"),
    "joined-train": ({"messages": [QUESTION, answer(WORSE, train=False), answer()]}, "messages.train: of", "train"),
    "one-answer": ({"messages": [answer()]}, "the conversation is a single answer", None),
    "status": ({"prompt": ASK, "response": SAY, "status": "rejected"}, "status: the column says 'rej", "status"),
    "flagged": ({"prompt": ASK, "response": SAY, "toxic": True}, "toxic: the column says True", "toxic"),
    "feedback": ({"messages": [QUESTION, answer(feedback="thumbs_down")]}, "says 'thumbs_down'", "messages.feedback"),
    "summaries-choice": ({"info": {"post": ASK}, "summaries": [{"text": SAY}, {"text": WORSE}], "choice": 2},
                         "choice: 2 does not rank the answers", None),
    "squad": ({"title": "Sky", "context": "Why the sky is blue.", "question": ASK,
               "answers": {"text": [SAY, SAY], "answer_start": [0, 0]}}, "answers: the field is not a list", None),
    "options": (OPTIONS, "options: no format reads this field", "options"),
    "letters": ({"question": ASK, "A": "Air", "B": "Sea", "answer": "A"}, "A: no format reads this field", "A,B"),
    "one-word": ({"prompt": ASK, "gold": "Scattering."}, "gold: no format reads this field", "gold"),
    "steps": ({"prompt": ASK, "steps": ["Add.", "Stop."], "ratings": [1, -1]}, "steps: no format reads", "steps"),
    "label-text": ({"prompt": ASK, "label": SAY}, "label: no format reads this field", "label"),
    "corrected": ({"prompt": ASK, "response": WORSE, "humanEdit": SAY}, "humanEdit: no format reads", "humanEdit"),
    "image-name": ({"prompt": ASK, "completion": SAY, "imageBase64": "iVBO"}, "the row holds images", "images"),
    "image-file": ({"prompt": ASK, "completion": SAY, "frames": ["a.png", "b.png"]}, "names images", "frames"),
    "image-data": ({"prompt": f"![](data:image/png;base64,iVB){ASK}", "completion": SAY}, "the place of", "images"),
    "image-number": ({"prompt": f"<image 1>{ASK}", "completion": SAY}, "holds <image 1>, the place of", "images"),
    "bedrock-image": ({"messages": [{"role": "user", "content": [{"text": ASK}, {"image": {"format": "png"}}]},
                                    answer()]}, "a turn holds images", "images"),
    "texts": ({"prompt": ASK, "chosen": SAY, "rejected": [WORSE, "No."]}, "rejected: the field is a list of t", None),
    "text-weight": ({"text": "Once upon a time.", "weight": 0.5}, "cannot have the weight 0.5", "weight"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_row_that_would_lose_its_meaning_is_refused_in_one_sentence(tmp_path, name):
    check_refused(tmp_path, *REFUSED[name])


def test_what_is_tolerated_is_counted(tmp_path):
    _, counts = read(tmp_path, [{**BOTH, "score_chosen": 7, "score_rejected": 7}])
    assert counts.tally.notes[SAME_SCORE] == 1
    _, counts = read(tmp_path, [{"prompt": f"[INST] {ASK} [/INST]", "completion": SAY}])
    assert counts.tally.notes[WITH_MARKERS] == 1
    rows, counts = read(tmp_path, [{**BOTH, "sample_weight": 0}, {"text": "Once upon a time.", "weight": 0}])
    assert not rows
    assert counts.tally.dropped["a row of weight 0"] == 2


def test_lists_that_are_no_lists_of_rows_say_what_to_do(tmp_path):
    with pytest.raises(Failure, match="and items holds turns; rename it to messages"):
        read(tmp_path, [{"id": "x", "items": turns(ASK, SAY, keys=("from", "value"), names=("human", "gpt"))}] * 2)
    beside = {"instruction": "Answer kindly and briefly.", "examples": [{"prompt": ASK, "completion": SAY}]}
    with pytest.raises(Failure, match="examples: no format reads this field"):
        read(tmp_path, json.dumps(beside), "rows.json")


@pytest.mark.parametrize("table", ["sep=;\nprompt;completion\nWhy?;So.\n", "prompt|completion\nWhy?|So.\n"])
def test_the_separator_of_a_table_is_recognised(tmp_path, table):
    rows, _ = read(tmp_path, table, "rows.csv")
    assert [short(row) for row in rows] == [("Why?", ["So."], 1.0)]


def test_texts_side_by_side_are_not_joined(tmp_path):
    with pytest.raises(Failure, match="responses: the field is not a list of texts"):
        read(tmp_path, "prompt,responses\nWhy?,\"['No idea.' 'So it is.']\"\n", "rows.csv")


def test_a_decimal_number_is_read():
    assert read_number(Decimal("0.2")) == 0.2
    assert read_number(Decimal("NaN")) is None
