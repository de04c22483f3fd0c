"""Columns that qualify an answer: labels, weights and ratings, read from numbers and from text alike.

A label is a number from 0 to 1, or true or false. Of a pair it is the probability that the chosen answer is the better
one; below 0.5 chosen and rejected are swapped. Of one answer it is whether the answer is good: a bad one is no
demonstration. `harms`, or BeaverTails' `category`, names the kinds of harm that an answer does.
A weight is 0 or more, and a row of weight 0 is left out. Anything else is a fault of the row, never ignored.

`finished` says of each answer, best first, whether it ended by itself: true or false for a single one, else a list. No
end token is learned after an answer that was cut off.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from alignlab.data.row_fields import Broken, Draft, LeftOut, RowFields

TRUE = {"true", "yes"}
FALSE = {"false", "no"}
LABELS = (
    "label", "labels", "kto_tag", "desirable", "is_desirable", "is_good", "is_chosen", "is_correct", "accepted",
    "correct", "preferred", "is_safe", "is_response_safe", "thumbs_up", "liked", "approved", "valid", "is_valid",
)  # fmt: skip
RATINGS = (
    "helpfulness", "correctness", "quality", "quality_score", "score", "scores", "overall_score", "rating", "ratings",
    "reward", "honesty", "truthfulness", "harmlessness", "is_harmful", "is_toxic", "unsafe", "thumbs", "thumbs_down",
    "votes", "upvotes", "verdict", "judgement", "judgment", "grade", "response_score", "answer_score",
    "response_quality",
    "answer_quality", "completion_score", "output_score", "user_rating", "human_rating", "human_score",
)  # fmt: skip
STEP_LABELS = ("labels", "step_labels", "step_ratings")
SCORES_OF_PAIRS = tuple(
    pair
    for stem in ("score", "rating", "reward")
    for pair in ((f"{stem}_chosen", f"{stem}_rejected"), (f"chosen_{stem}", f"rejected_{stem}"))
)
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
    return float(value) if isinstance(value, bool | int | float) and abs(value) < 1e300 and isfinite(value) else None


def qualify(draft: Draft, fields: RowFields) -> Draft:
    """Return a draft with the label and the weight of its row."""
    if not draft.completions or not draft.prompt:
        return draft
    weight = read_weight(fields, len(draft.completions)) * draft.weight
    draft = draft._replace(cut_off=read_cut_off(fields, len(draft.completions)))
    if len(draft.completions) == 1:
        return _qualify_answer(draft._replace(weight=weight), fields)
    if len(draft.completions) == 2:
        _check_scores(fields)
        return _qualify_pair(draft._replace(weight=weight), fields)
    if fields.holds("label"):
        raise Broken("label", "a label of more than two answers is not clear", "no label", ignoring("label"))
    return draft._replace(weight=weight)


def read_weight(fields: RowFields, completions: int) -> float:
    """Return the weight of a row; 1 if it has none."""
    if not fields.holds("weight") or "weight" in fields.read:
        return 1.0
    weight = read_number(fields["weight"])
    if weight is None or weight < 0:
        raise Broken(
            "weight", f"{shown(fields['weight'])} is not a weight", "a number of 0 or more", ignoring("weight")
        )
    if weight == 0:
        raise LeftOut("a row of weight 0")
    if completions == 1 and weight != 1 and not fields.held(LABELS):
        raise Broken("weight", f"a demonstration cannot have the weight {weight:g}", "0 or 1", ignoring("weight"))
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


def _check_scores(fields: RowFields) -> None:
    """Raise a fault if the rejected answer has the higher score."""
    for names in SCORES_OF_PAIRS:
        if all(fields.holds(name) for name in names):
            chosen, rejected = (read_number(fields[name]) for name in names)
            if chosen is not None and rejected is not None and chosen < rejected:
                raise Broken(names[1], "the rejected answer has the higher score", "the better answer as chosen")


def shown(value: Any) -> str:
    """Return a value as an error message shows it."""
    return repr(value)[:40] if isinstance(value, str) else str(value)[:40]


def ignoring(*names: str) -> str:
    """Return the advice to ignore these fields."""
    return f"if the column means something else, leave it out with dataset.ignore=[{','.join(names)}]"
