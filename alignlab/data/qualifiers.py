"""Columns that qualify an answer: labels, weights and ratings, read from numbers and from text alike.

A label is a number from 0 to 1, or true or false. Of a pair it is the probability that the chosen answer is the better
one; below 0.5 chosen and rejected are swapped. Of one answer it is whether the answer is good: a bad one is no
demonstration. `harms`, or BeaverTails' `category`, names the kinds of harm that an answer does.
A weight is 0 or more, and a row of weight 0 is left out. Anything else is a fault of the row, never ignored.

`finished` says of each answer, best first, whether it ended by itself: true or false for a single one, else a list. No
end token is learned after an answer that was cut off.
"""

from collections.abc import Mapping
from decimal import Decimal
from math import isfinite
from typing import Any

from alignlab.data.row_fields import Broken, Draft, LeftOut, RowFields, canonical, decode, note
from alignlab.data.unread_fields import METADATA_NAMES

TRUE = {"true", "yes"}
FALSE = {"false", "no"}
LABELS = (
    "label", "labels", "kto_tag", "desirable", "is_desirable", "is_good", "is_chosen", "is_correct", "accepted",
    "correct", "preferred", "is_safe", "is_response_safe", "thumbs_up", "liked", "approved", "valid", "is_valid",
)  # fmt: skip
WEIGHTS = ("weight", "sample_weight", "loss_weight", "example_weight")
RATINGS = (
    "helpfulness", "correctness", "quality", "quality_score", "score", "scores", "overall_score", "rating", "ratings",
    "reward", "honesty", "truthfulness", "harmlessness", "thumbs", "votes", "upvotes", "verdict", "judgement",
    "judgment", "grade", "response_score", "answer_score", "response_quality", "toxicity", "answer_quality",
    "completion_score", "output_score", "user_rating", "human_rating", "human_score",
)  # fmt: skip
QUALIFIERS = (*LABELS, *RATINGS)
STEP_LABELS = ("labels", "step_labels", "step_ratings")
FAULTS = (
    "is_harmful", "harmful", "is_toxic", "toxic", "unsafe", "is_unsafe", "flagged", "is_flagged", "thumbs_down",
)  # fmt: skip
BAD_WORDS = {
    "bad", "wrong", "incorrect", "negative", "rejected", "poor", "unsafe", "harmful", "toxic", "thumbs_down",
    "thumbs down", "dislike", "disliked", "downvote", "downvoted", "failed", "fail",
}  # fmt: skip
SCORE_WORDS = {"score", "scores", "rating", "ratings", "reward", "rewards", "grade"}
ORDER_WORDS = SCORE_WORDS | {
    "rank", "ranks", "ranking", "votes", "upvotes", "downvotes", "likes", "best", "better", "chosen", "selected",
    "accepted", "preferred", "correct", "winner", "choice", "quality", "label",
}  # fmt: skip
TIED = {"tie", "tied", "draw"}
SAME_SCORE = "a pair whose answers have the same score"
BAD = "a bad answer (label false), kept but no demonstration"
TURNED = "a pair with chosen and rejected swapped (label below 0.5)"
TIE = "a tie (label 0.5)"
SOFT = "soft label"


def read_number(value: Any) -> float | None:
    """Return a number, also from text, and 1 and 0 for true and false; None if the value is none of them."""
    if isinstance(value, str):
        word = value.strip().casefold()
        if word in TRUE | FALSE:
            return float(word in TRUE)
        try:
            value = float(word)
        except ValueError:
            return None
    if isinstance(value, Decimal):
        value = float(value)
    return float(value) if isinstance(value, bool | int | float) and abs(value) < 1e300 and isfinite(value) else None


def qualify(draft: Draft, fields: RowFields) -> Draft:
    """Return a draft with the label and the weight of its row."""
    if not draft.completions or not draft.prompt:
        return draft._replace(weight=read_weight(fields, 1))
    weight = read_weight(fields, len(draft.completions)) * draft.weight
    if weight != draft.weight or "finished" in fields.values_by_name:
        draft = draft._replace(weight=weight, cut_off=read_cut_off(fields, len(draft.completions)))
    if len(draft.completions) == 1:
        return _qualify_answer(draft, fields)
    if len(draft.completions) == 2:
        return _qualify_pair(draft._replace(label=_check_scores(fields, draft.label)), fields)
    if fields.holds("label"):
        raise Broken("label", "a label of more than two answers is not clear", "no label", ignoring("label"))
    return draft


def read_weight(fields: RowFields, completions: int) -> float:
    """Return the weight of a row; 1 if it has none."""
    name = next((name for name in fields.held(WEIGHTS) if fields.original(name) not in fields.read), None)
    if name is None:
        return 1.0
    weight = read_number(fields[name])
    if weight is None or weight < 0:
        raise Broken(name, f"{shown(fields[name])} is not a weight", "a number of 0 or more", ignoring(name))
    if weight == 0:
        raise LeftOut("a row of weight 0")
    if completions == 1 and weight != 1 and not fields.held(LABELS):
        raise Broken(name, f"a row without a pair cannot have the weight {weight:g}", "0 or 1", ignoring(name))
    return weight


def read_cut_off(fields: RowFields, completions: int) -> tuple[int, ...]:
    """Return the places of the completions that did not end by themselves; a column of another form is not read."""
    if "finished" not in fields.values_by_name:
        return ()
    finished = fields.values_by_name["finished"]
    of_each = [finished] if isinstance(finished, bool) else finished
    if (
        not isinstance(of_each, list)
        or len(of_each) != completions
        or not all(isinstance(end, bool) for end in of_each)
    ):
        return ()
    fields.read.add("finished")
    return tuple(place for place, end in enumerate(of_each) if not end)


def _qualify_pair(draft: Draft, fields: RowFields) -> Draft:
    """Put the better answer first; the label is then at least 0.5."""
    label = draft.label
    if fields.holds("label"):
        label = read_label(fields, "label", "the probability that the chosen answer is the better one, from 0 to 1")
    if label < 0.5:
        cut_off = tuple(1 - place for place in reversed(draft.cut_off))
        turned = draft._replace(completions=draft.completions[::-1], label=1 - label, cut_off=cut_off)
        return turned._replace(notes=(*draft.notes, TURNED))
    return draft._replace(label=label, notes=(*draft.notes, TIE) if label == 0.5 else draft.notes)


def _qualify_answer(draft: Draft, fields: RowFields) -> Draft:
    """Mark an answer as bad if a column says so; refuse a column that rates it in degrees."""
    good = True
    labels = fields.held(LABELS)
    for name in labels:
        label = read_label(fields, name, "whether the answer is good: true or false")
        if label not in (0, 1):
            raise Broken(name, f"an answer cannot be learned to {label:g}", "true or false", ignoring(name))
        good = good and label == 1
    if labels:
        draft = draft._replace(rated=True, harms=read_harms(fields))
    if rated := fields.held(RATINGS):
        reason = "the column rates the answers, and good and bad ones would be learned alike"
        raise Broken(rated[0], reason, "rows that are all to be learned", ignoring(*rated))
    if not labels:
        _refuse_faults(fields)
    return draft if good else draft._replace(label=0.0, notes=(*draft.notes, BAD))


def read_harms(fields: RowFields) -> tuple[str, ...]:
    """Return the kinds of harm of a labelled answer: a list of names, or an object of names with true or false."""
    if isinstance(category := fields.peek("category"), Mapping) and all(isinstance(v, bool) for v in category.values()):
        return tuple(name for name, applies in fields["category"].items() if applies)
    names = fields.get("harms") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Broken("harms", f"{shown(names)} is not a list of names", "the kinds of harm", ignoring("harms"))
    return tuple(names)


def read_label(fields: RowFields, name: str, expected: str) -> float:
    """Return a label; raise a fault if it is not a number from 0 to 1."""
    label = read_number(fields[name])
    if label is None or not 0 <= label <= 1:
        raise Broken(name, f"{shown(fields[name])} is not a label", expected, ignoring(name))
    return label


def _refuse_faults(fields: RowFields) -> None:
    """Raise a fault if a field that no format reads says that the answer is bad: `status: rejected`, `toxic: true`."""
    for name, value in fields.unread():
        if {*canonical(name.rpartition(".")[2]).split("_")} & METADATA_NAMES:
            continue
        values = value if isinstance(value, list) else [value]
        says_bad = any(isinstance(word, str) and word.strip().casefold() in BAD_WORDS for word in values)
        if says_bad or (canonical(name.rpartition(".")[2]) in FAULTS and read_number(value) != 0):
            reason = f"the column says {shown(value)}, and good and bad answers would be learned alike"
            raise Broken(name, reason, "rows that are all to be learned", ignoring(name))


def _check_scores(fields: RowFields, label: float) -> float:
    """Return the label of a pair: 0.5 if a field says tie. Raise a fault if the rejected answer has more score."""
    for name, value in list(fields.unread()):
        parts = {*canonical(name).split("_")}
        other = name
        scores: list[float | None] = []
        if "chosen" in parts and parts & SCORE_WORDS:
            other = canonical(name).replace("chosen", "rejected")
            scores = [read_number(value), read_number(fields.peek(other))]
        elif "margin" in parts and fields.holds("chosen"):
            scores = [read_number(value), 0.0]
        elif parts & SCORE_WORDS and isinstance(value, list) and fields.holds("chosen") and not fields.holds("order"):
            scores = [read_number(number) for number in value]
        elif isinstance(value, str) and value.strip().casefold() in TIED:
            label = 0.5
        if len(scores) == 2 and scores[0] is not None and scores[1] is not None:
            fields.read |= {name, fields.original(other) or name}
            if scores[0] < scores[1]:
                reason = "the rejected answer has the higher score"
                raise Broken(other, reason, "the better answer as chosen", ignoring(other))
            if scores[0] == scores[1]:
                note(fields, SAME_SCORE)
    return label


def says_order(name: str, value: Any) -> bool:
    """Return whether a field of answers may say which of them is better: numbers under a name such as `votes`."""
    decoded = decode(value)
    numbers = decoded if isinstance(decoded, list) else [decoded]
    named = {*canonical(name).split("_")} & ORDER_WORDS
    return bool(named and numbers) and all(read_number(number) is not None for number in numbers)


def shown(value: Any) -> str:
    """Return a value as an error message shows it."""
    return repr(value)[:40] if isinstance(value, str) else str(value)[:40]


def ignoring(*names: str) -> str:
    """Return the advice to ignore these fields."""
    return f"if the column means something else, leave it out with dataset.ignore=[{','.join(names)}]"
