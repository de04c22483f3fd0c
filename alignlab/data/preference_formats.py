"""Formats of preference data: pairs, two answers with a verdict, and rankings.

A tie is a pair with the label 0.5. `verdicts` reads which of two answers is better.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignlab.chat import Turn
from alignlab.data.hh_rlhf import parse_transcript
from alignlab.data.prompts import COMPLETIONS, EARLIER, PROMPTS, parse_completion, parse_prompt
from alignlab.data.qualifiers import STEP_LABELS, ignoring, read_number, says_order, shown
from alignlab.data.row_fields import (
    Broken,
    Draft,
    RowFields,
    decode,
    fields_of,
    note,
    parse_text,
    pick,
    type_name,
)
from alignlab.data.turns import holds_turns, parse_turns, with_system
from alignlab.data.verdicts import FIRST_ANSWERS as FIRST_ANSWERS
from alignlab.data.verdicts import PAIRS, WINNERS, rank_answers, read_verdict
from alignlab.data.verdicts import SECOND_ANSWERS as SECOND_ANSWERS
from alignlab.data.verdicts import VERDICTS as VERDICTS

Fields = Mapping[str, Any]
BEFORE = (*PROMPTS, *EARLIER)
CHOSEN = (
    "chosen", "chosen_response", "chosen_answer", "chosen_text", "preferred", "preferred_response",
    "preferred_answer", "preferred_output", "correct", "correct_answer", "correct_response", "positive",
    "positive_option", "positive_response", "pos", "good", "good_answer", "good_response", "better",
    "better_answer", "better_response", "best", "win", "winner_response", "accepted", "response_j", "answer_j",
    "y_w", "response_w",
)  # fmt: skip
REJECTED = (
    "rejected", "rejected_response", "rejected_answer", "rejected_text", "dispreferred", "dispreferred_response",
    "non_preferred", "non_preferred_output", "dispreferred_output", "incorrect", "incorrect_answer",
    "incorrect_response", "wrong", "wrong_answer", "negative", "negative_option", "negative_response", "neg",
    "bad", "bad_answer", "bad_response", "worse", "worse_answer", "worse_response", "worst", "lose",
    "loser_response", "response_k", "answer_k", "y_l", "response_l",
)  # fmt: skip
OPPOSITES = {
    "chosen": "rejected", "preferred": "dispreferred", "correct": "incorrect", "positive": "negative", "pos": "neg",
    "good": "bad", "better": "worse", "best": "worst", "winner_response": "loser_response", "win": "lose",
    "accepted": "rejected", "_j": "_k", "_w": "_l",
}  # fmt: skip
# The name of REJECTED that belongs to each name of CHOSEN.
PARTNERS = {name: next(name.replace(good, bad) for good, bad in OPPOSITES.items() if good in name) for name in CHOSEN}
REJECTED_BESIDE = ("rejected_response", "rejected_answer", "rejected_messages", "rejected_completion", "rejected")
RANKINGS = ("completions", "responses", "answers", "generations", "ranking")
SCORES = ("scores", "ratings", "rewards", "score", "rating")
RANKS = ("ranks", "rank")
TEXTS = ("text", "content", "response", "answer", "completion", "output", "value")
SCORES_INSIDE = ("score", "overall_score", "rating", "reward", "pm_score", "votes", "upvotes")
NO_PROMPT = "the pair has no prompt"
NEEDS_PROMPT = "a field `prompt`, or conversations that begin with the user (Human: …)"


def messages_preference(fields: Fields) -> list[Draft]:
    """Parse two whole conversations that differ in their last turn (LLaMA-Factory)."""
    return [conversation_pair(parse_turns(fields, "chosen_messages"), parse_turns(fields, "rejected_messages"), fields)]


def sharegpt_preference(fields: Fields) -> list[Draft]:
    """Parse a conversation and two possible next turns (LLaMA-Factory's ShareGPT)."""
    name = pick(fields, ("conversations", "conversation", "messages")) or "conversations"
    prompt = with_system(fields, parse_turns(fields, name))
    return [_pair_after(prompt, fields)]


def preference(fields: Fields) -> list[Draft]:
    """Parse a prompt and two completions, as text or as turns; the turns may repeat the prompt (UltraFeedback)."""
    chosen, rejected = _sides(fields)
    values = [decode(fields.get(side)) for side in (chosen, rejected)]
    if all(isinstance(value, list) and len(value) > 1 for value in values):
        return [conversation_pair(parse_turns(fields, chosen), parse_turns(fields, rejected), fields)]
    return [_pair_after(_prompt(fields), fields)]


def hh_rlhf(fields: Fields) -> list[Draft]:
    """Parse two whole conversations, as HH-RLHF's transcripts or as turns."""
    if holds_turns(fields.get("chosen")) or isinstance(fields.get("chosen"), list):
        chosen, rejected = parse_turns(fields, "chosen"), parse_turns(fields, "rejected")
        if len(chosen) == len(rejected) == 1:
            raise Broken("chosen, rejected", NO_PROMPT, NEEDS_PROMPT)
        return [conversation_pair(chosen, rejected, fields)]
    sides = [parse_transcript(parse_text(fields, (name,))) for name in ("chosen", "rejected")]
    for name, side in zip(("chosen", "rejected"), sides, strict=True):
        if isinstance(side, str):
            plain = side == "the text does not begin with a human turn"
            raise Broken(name, f"{side}, and {NO_PROMPT}" if plain else side, NEEDS_PROMPT)
    better, worse = sides
    assert not isinstance(better, str)
    assert not isinstance(worse, str)
    _check_same_prompt(better.prompt, worse.prompt)
    notes = tuple(sorted({*better.notes, *worse.notes}))
    return [Draft(better.prompt, [better.completion, worse.completion], notes)]


def rejected_response(fields: Fields) -> list[Draft]:
    """Parse a prompt, a completion and a rejected one beside it (ms-swift)."""
    rejected = pick(fields, REJECTED_BESIDE) or REJECTED_BESIDE[0]
    return [Draft(_prompt(fields), [parse_completion(fields, *COMPLETIONS), parse_completion(fields, rejected)])]


def messages_rejected(fields: Fields) -> list[Draft]:
    """Parse a conversation whose last answer is chosen, and a rejected answer or conversation (ms-swift)."""
    turns = with_system(fields, parse_turns(fields, "messages"))
    if not turns or turns[-1]["role"] != "assistant":
        raise Broken("messages", "the conversation does not end with the assistant", "the chosen answer last")
    rejected = pick(fields, REJECTED_BESIDE) or REJECTED_BESIDE[0]
    if isinstance(decoded := decode(fields.get(rejected)), list) and len(decoded) > 1:
        return [conversation_pair(turns, with_system(fields, parse_turns(fields, rejected)), {})]
    return [Draft(turns[:-1], [turns[-1]["content"], parse_completion(fields, rejected)])]


def compared(fields: Fields) -> list[Draft]:
    """Parse two answers and the verdict on them."""
    row = fields_of(fields)
    first, second = next((pair for pair in PAIRS if all(row.holds(name) for name in pair)), ("", ""))
    if not first:
        raise Broken("response_a, response_b", "there are not two answers", "two answers and a verdict on them")
    label, weight = read_verdict(row, first, second)
    if conversations := _parallel_lists(row, first, second):
        draft = conversation_pair(*conversations, row)
    elif first.startswith("conversation"):
        draft = conversation_pair(parse_turns(row, first), parse_turns(row, second), row)
    else:
        draft = Draft(_prompt(row), [parse_completion(row, first), parse_completion(row, second)])
    return [draft._replace(label=label, weight=weight)]


def _parallel_lists(row: RowFields, first: str, second: str) -> tuple[list[Turn], list[Turn]] | None:
    """Return two conversations whose questions and answers are lists of texts of one length (Chatbot Arena)."""
    name = pick(row, PROMPTS)
    lists = [decode(row.peek(field)) for field in (name or "", first, second)]
    if not all(isinstance(texts, list) and texts and isinstance(texts[0], str) for texts in lists):
        return None
    for read in (name or "", first, second):
        row.get(read)
    questions, *sides = lists
    if not all(len(side) == len(questions) and all(isinstance(text, str) for text in side) for side in lists):
        raise Broken(f"{first}, {second}", "the lists hold no answer to each question", "an answer for each question")
    one, other = ([turn for pair in zip(questions, side, strict=True) for turn in _exchange(*pair)] for side in sides)
    return one, other


def _exchange(question: str, answer: str) -> list[Turn]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def ranking(fields: Fields) -> list[Draft]:
    """Parse a prompt and several completions: by score or rank if the row has them, else best first."""
    row = fields_of(fields)
    return _ranked(row, pick(row, RANKINGS) or RANKINGS[0], lambda: _prompt(row))


def summaries(fields: Fields) -> list[Draft]:
    """Parse a post or an article, two summaries, and which is better (OpenAI's summarize_from_feedback)."""
    row = fields_of(fields)
    if not isinstance(row["info"], Mapping):
        raise Broken("info", f"the field is {type_name(row['info'])}", "an object with a post or an article")
    info = row.part("info", row["info"])
    kind = pick(info, ("post", "article")) or "post"
    names = ("subreddit", "title", kind) if kind == "post" else (kind,)
    text = "\n\n".join(f"{name.upper()}: {parse_text(info, (name,))}" for name in names if info.holds(name))
    return _ranked(row, "summaries", lambda: [{"role": "user", "content": f"{text}\n\nTL;DR:"}])


def eli5(fields: Fields) -> list[Draft]:
    """Parse a title, a text below it, and scored answers (ELI5)."""
    row = fields_of(fields)
    question = "\n\n".join(parse_text(row, (name,)) for name in ("title", "selftext") if row.holds(name))
    return _ranked(row, "answers", lambda: [{"role": "user", "content": question}])


def _ranked(row: RowFields, name: str, prompt: Callable[[], list[Turn]]) -> list[Draft]:
    """Rank the completions of a field; the prompt is parsed last, when they are known to be right."""
    completions = _as_objects(decode(row[name]))
    if isinstance(completions, list) and completions and all(isinstance(item, Mapping) for item in completions):
        texts, scores = _scored_objects(row, name, completions)
    else:
        texts, scores = completions, None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Broken(name, "the field is not a list of texts", "a list of completions, best first")
    if len(texts) < 2:
        raise Broken(name, f"the number of completions is {len(texts)}", "two or more, best first")
    if steps := next((steps for steps in STEP_LABELS if row.holds(steps)), ""):
        reason = "labels of single steps or answers, from which no method here learns"
        raise Broken(steps, reason, "scores, which rank the answers", ignoring(steps))
    scores = scores or _scores_beside(row, texts)
    if scores:
        return [rank_answers(row, prompt(), texts, scores)]
    if name := next((name for name, value in row.unread() if says_order(name, value)), ""):
        raise Broken(name, "the field may say which answer is better", "scores or ranks", ignoring(name))
    note(row, "answers without scores, taken as best first")
    return [Draft(prompt(), list(texts))]


def _as_objects(value: Any) -> Any:
    """Return lists of texts and of scores side by side, as `datasets` stores objects, as a list of objects."""
    if not isinstance(value, Mapping) or not set(value) & set(SCORES_INSIDE):
        return value
    columns = [column for column in value.values() if isinstance(column, list)]
    if len(columns) < len(value) or len({len(column) for column in columns}) != 1:
        return value
    return [dict(zip(value, item, strict=True)) for item in zip(*columns, strict=True)]


def _scored_objects(row: RowFields, name: str, items: list[Mapping[str, Any]]) -> tuple[list[str], list[float] | None]:
    parts = [row.part(name, item) for item in items]
    texts = [parse_text(part, TEXTS) for part in parts]
    for names, sign in ((SCORES_INSIDE, 1), (RANKS[1:], -1)):
        if field := next((field for field in names if all(part.holds(field) for part in parts)), ""):
            return texts, [sign * _number(part, field) for part in parts]
    return texts, None


def _scores_beside(row: RowFields, texts: Sequence[str]) -> list[float] | None:
    for names, sign in ((SCORES, 1), (RANKS, -1)):
        if name := next((name for name in names if row.holds(name)), ""):
            values = decode(row[name])
            if not isinstance(values, list) or len(values) != len(texts):
                raise Broken(name, f"the field is not a list of {len(texts)} numbers", "one number for each completion")
            return [sign * _number({name: value}, name) for value in values]
    if name := next((name for name in ("chosen", "best", *WINNERS) if row.holds(name)), ""):
        index = read_number(row[name])
        if len(texts) != 2 or index not in (0, 1):
            raise Broken(name, f"{shown(row[name])} does not rank the answers", "scores", ignoring(name))
        return [1 - index, index]
    return None


def _number(fields: Fields, name: str) -> float:
    number = read_number(fields[name])
    if number is None:
        raise Broken(name, f"{shown(fields[name])} is not a number", "a number", ignoring(name))
    return number


def _prompt(fields: Fields) -> list[Turn]:
    """Return the prompt of a row, from a field of PROMPTS or else from the conversation before the answers."""
    names = PROMPTS if any(fields_of(fields).holds(name) for name in PROMPTS) else BEFORE
    return parse_prompt(fields, names)


def _sides(fields: Fields) -> tuple[str, str]:
    """Return the names of the chosen and the rejected field: two that belong together, if there are such."""
    row = fields_of(fields)
    for chosen, rejected in PARTNERS.items():
        if row.holds(chosen) and row.holds(rejected):
            return chosen, rejected
    return pick(row, CHOSEN) or "chosen", pick(row, REJECTED) or "rejected"


def _pair_after(prompt: list[Turn], fields: Fields) -> Draft:
    return Draft(prompt, [parse_completion(_without(prompt, fields, side), side) for side in _sides(fields)])


def _without(prompt: list[Turn], fields: Fields, side: str) -> Fields:
    """Return the fields of a row, with the prompt taken off the turns of a side that repeats it."""
    if not isinstance(decode(fields.get(side)), list):
        return fields
    turns = parse_turns(fields, side)
    return {side: list(turns[len(prompt) :])} if prompt and turns[: len(prompt)] == prompt else fields


def conversation_pair(chosen: list[Turn], rejected: list[Turn], fields: Fields) -> Draft:
    """Return the pair of two conversations that differ in their last turn."""
    chosen, rejected = with_system(fields, chosen), with_system(fields, rejected)
    if not chosen or not rejected or chosen[-1]["role"] != "assistant" or rejected[-1]["role"] != "assistant":
        raise Broken("chosen, rejected", "a conversation does not end with the assistant", "an assistant turn last")
    _check_same_prompt(chosen[:-1], rejected[:-1])
    return Draft(chosen[:-1], [chosen[-1]["content"], rejected[-1]["content"]])


def _check_same_prompt(chosen: list[Turn], rejected: list[Turn]) -> None:
    if chosen != rejected:
        reason = "the two conversations differ before the last turn"
        raise Broken("chosen, rejected", reason, "one prompt, two completions")
