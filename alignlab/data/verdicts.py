"""Verdicts on answers: a winner of two, a signed strength, scores, or the votes of several annotators.

A tie is the label 0.5. The strength (HelpSteer2: negative if the first answer is better) is the weight of the pair. The
label of several votes (PandaLM) is their share.
"""

from collections.abc import Sequence

from alignlab.chat import Turn
from alignlab.data.qualifiers import ignoring, read_number, shown
from alignlab.data.row_fields import Broken, Draft, RowFields, note

STEMS = ("response", "answer", "completion", "output", "human_ref", "conversation", "summary")
SUFFIXES = (("a", "b"), ("0", "1"), ("1", "2"))
PAIRS = [
    (f"{stem}{dash}{first}", f"{stem}{dash}{second}")
    for stem in STEMS
    for dash in ("_", "")
    for first, second in SUFFIXES
]
FIRST_ANSWERS, SECOND_ANSWERS = tuple(first for first, _ in PAIRS), tuple(second for _, second in PAIRS)
STRENGTHS = ("preference_strength", "overall_preference")
WINNERS = ("better_response_id", "winner", "preference", "preferred", "choice", "better", "safer_response_id")
ANNOTATORS = tuple(f"annotator{dash}{number}" for dash in ("", "_") for number in range(1, 10))
NAME_WORDS = 2  # of a model's name
WON = ("winner_model_a", "winner_model_b", "winner_tie")
SCORED = ("score", "rating", "reward", "overall_rating")
VERDICTS = (
    *STRENGTHS, *WINNERS, *ANNOTATORS, "winner_model_a", "labels",
    *(f"{name}_{suffix}" for name in SCORED for pair in SUFFIXES for suffix in pair),
)  # fmt: skip
TIES = (
    "tie",
    "tie (bothbad)",
    "tie_bothbad",
    "bothbad",
    "both_bad",
    "both",
    "equal",
    "draw",
    "same",
    "neither",
    "none",
)


def read_verdict(row: RowFields, first: str, second: str) -> tuple[float, float]:
    """Return the probability that the first answer is better, and the weight of the pair."""
    suffixes = next(pair for pair in SUFFIXES if first.endswith(pair[0]) and second.endswith(pair[1]))
    if name := next((name for name in STRENGTHS if row.holds(name)), ""):
        strength = read_number(row[name])
        if strength is None:
            raise Broken(name, f"{shown(row[name])} is not a number", "negative if the first answer is better")
        return (0.5, 1.0) if strength == 0 else (float(strength < 0), abs(strength))
    votes = [_vote(row, name, suffixes) for name in ANNOTATORS if row.holds(name)]
    if votes:
        return sum(votes) / len(votes), 1.0
    if name := next((name for name in WINNERS if row.holds(name)), ""):
        return _vote(row, name, suffixes), 1.0
    if row.holds("winner_model_a"):
        won = {name: read_number(row[name]) for name in WON if row.holds(name)}
        if None in won.values() or sum(float(bool(number)) for number in won.values()) != 1:
            raise Broken("winner_model_a", "the columns do not name one winner", f"1 in one of {', '.join(WON)}")
        return (1.0 if won.get(WON[0]) else 0.0 if won.get(WON[1]) else 0.5), 1.0
    if row.holds("labels") and first.startswith("human_ref") and read_number(row["labels"]) in (0, 1):  # SHP
        return float(read_number(row["labels"]) or 0), 1.0
    for stem in SCORED:
        names = [f"{stem}_{suffix}" for suffix in suffixes]
        if all(row.holds(name) for name in names):
            one, other = (read_number(row[name]) for name in names)
            if one is not None and other is not None:
                return (0.5 if one == other else float(one > other)), 1.0
    raise Broken("winner", "no field says which answer is better", " or ".join(WINNERS))


def _vote(row: RowFields, name: str, suffixes: tuple[str, str]) -> float:
    """Return 1 if a vote is for the first answer, 0 for the second, 0.5 for a tie (0 beside answers 1 and 2)."""
    number = read_number(row[name])
    value = f"{number:g}" if number is not None and not isinstance(row[name], bool) else str(row[name])
    word = value.strip().casefold().replace("assistant_", "model_")
    if word in TIES or (word == "0" and suffixes == ("1", "2")):
        return 0.5
    for share, suffix, ordinal in ((1.0, suffixes[0], "first"), (0.0, suffixes[1], "second")):
        names = {suffix, f"model_{suffix}", f"{ordinal}", *(f"{stem}{dash}{suffix}" for stem in STEMS for dash in "_ ")}
        if word in names | {f"{stem}{suffix}" for stem in STEMS}:
            return share
    values = [row.peek(f"model_{suffix}") for suffix in suffixes]
    models = [value.casefold() for value in values if isinstance(value, str) and len(value.split()) <= NAME_WORDS]
    if word in models and len({*models}) == 2:
        for suffix in suffixes:
            row.get(f"model_{suffix}")
        return float(word == models[0])
    raise Broken(
        name, f"{shown(row[name])} names neither answer", f"{suffixes[0]}, {suffixes[1]} or tie", ignoring(name)
    )


def rank_answers(row: RowFields, prompt: list[Turn], texts: Sequence[str], scores: Sequence[float]) -> Draft:
    """Sort completions by their scores; of two a tie has the label 0.5, of more the later one of a tie is left out."""
    order = sorted(range(len(texts)), key=lambda index: -scores[index])
    if len(texts) == 2 and scores[0] == scores[1]:
        return Draft(prompt, list(texts), label=0.5)
    kept = [index for place, index in enumerate(order) if not place or scores[index] < scores[order[place - 1]]]
    if len(kept) < len(order):
        note(row, "a ranking without the answers whose score another answer has")
    if len(kept) < 2:
        raise Broken("scores", "all answers have the same score", "scores that differ")
    return Draft(prompt, [texts[index] for index in kept])
