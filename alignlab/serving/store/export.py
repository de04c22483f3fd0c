"""Export feedback as training data in TRL's forms, as conversation turns, and a card that describes it.

Withdrawn feedback and answers whose texts are not stored are left out.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import combinations
from typing import Any

import sqlalchemy as sa

from alignlab.serving.store.records import Row
from alignlab.serving.store.tables import answers, feedback, items

GOOD = 4  # stars from which an answer counts as good
BAD = 2  # stars up to which an answer counts as bad
FORMS = ("preference", "prompt_completion", "unpaired_preference")


def turn(text: str) -> list[dict[str, str]]:
    """Return a completion as conversation turns."""
    return [{"role": "assistant", "content": text}]


def rows(connection: sa.Connection, form: str) -> Iterator[Row]:
    """Yield the rows of a form, the oldest feedback first."""
    for entry in valid(connection, "answer"):
        yield from ANSWER_ROWS[form](entry, entry["value"])
    if form == "preference":
        for kind in ("compare", "label"):
            for entry in valid(connection, kind):
                yield from pairs(entry)


def valid(connection: sa.Connection, kind: str) -> Iterator[Row]:
    """Yield feedback of a kind that was not withdrawn, with its answer or item."""
    if kind == "answer":
        columns = [answers.c.prompt, answers.c.completion, answers.c.model, answers.c.version]
        query = sa.select(feedback, *columns).join(answers, feedback.c.subject == answers.c.id)
        query = query.where(answers.c.completion.is_not(None))
    else:
        query = sa.select(feedback, items.c.prompt, items.c.candidates).join(items, feedback.c.subject == items.c.id)
    query = query.where(feedback.c.kind == kind, feedback.c.withdrawn.is_(None))
    for row in connection.execute(query.order_by(feedback.c.created, feedback.c.id)).mappings():
        yield dict(row)


def about(entry: Mapping[str, Any], **more: Any) -> Row:
    """Return the fields that say where a row comes from."""
    return {"feedback_id": entry["id"], "annotator": entry["user"], **more}


def corrections(entry: Mapping[str, Any], value: Row) -> Iterator[Row]:
    """Yield the pair of a corrected answer: the correction is chosen."""
    if (better := value.get("correction")) and better != entry["completion"]:
        source = about(entry, source="correction", model=entry["model"], version=entry["version"])
        yield {"prompt": entry["prompt"], "chosen": turn(better), "rejected": turn(entry["completion"])} | source


def demonstrations(entry: Mapping[str, Any], value: Row) -> Iterator[Row]:
    """Yield a correction, or an answer that somebody found good."""
    if text := value.get("correction") or (entry["completion"] if is_good(value) else None):
        source = about(entry, source="correction" if value.get("correction") else "liked", version=entry["version"])
        yield {"prompt": entry["prompt"], "completion": turn(text)} | source


def verdicts(entry: Mapping[str, Any], value: Row) -> Iterator[Row]:
    """Yield an answer with the label true (good) or false (bad, or harmful)."""
    if (good := is_good(value)) is not None:
        source = about(entry, source="verdict", model=entry["model"], version=entry["version"])
        harms = {"harms": value["categories"]} if value.get("categories") else {}
        yield {"prompt": entry["prompt"], "completion": turn(entry["completion"]), "label": good} | harms | source


ANSWER_ROWS = {"preference": corrections, "prompt_completion": demonstrations, "unpaired_preference": verdicts}


def is_good(value: Row) -> bool | None:
    """Return whether feedback finds an answer good; None where it does not say, or contradicts itself."""
    signs = {value["thumb"] == "up"} if "thumb" in value else set()
    stars = value.get("rating", 3)
    signs |= {True} if stars >= GOOD else {False} if stars <= BAD else set()
    if value.get("categories"):
        signs.add(False)
    return signs.pop() if len(signs) == 1 else None


def pairs(entry: Mapping[str, Any]) -> Iterator[Row]:
    """Yield a pair for every two answers of an item of which one was found better."""
    value, candidates = entry["value"], {each["answer_id"]: each for each in entry["candidates"]}
    ranks = value.get("ranks") or {each: int(each != value["choice"]) for each in candidates}
    if value.get("choice") == "tie":
        return
    for first, second in combinations(sorted(candidates), 2):
        better, worse = sorted((first, second), key=lambda each: ranks[each])
        texts = [candidates[each]["completion"] for each in (better, worse)]
        if ranks[better] < ranks[worse] and texts[0] != texts[1]:
            models = [candidates[each]["model"] for each in (better, worse)]
            source = about(entry, source=entry["kind"], chosen_model=models[0], rejected_model=models[1])
            yield {"prompt": entry["prompt"], "chosen": turn(texts[0]), "rejected": turn(texts[1])} | source


def lines(connection: sa.Connection, form: str) -> Iterator[str]:
    """Yield the rows of a form as JSON lines."""
    for row in rows(connection, form):
        yield json.dumps(row, ensure_ascii=False) + "\n"


def card(connection: sa.Connection) -> str:
    """Return a card in Markdown: how many rows there are, from whom, about which models, and what they hold."""
    counts = {form: sum(1 for _ in rows(connection, form)) for form in FORMS}
    given = [each for kind in ("answer", "compare", "label") for each in valid(connection, kind)]
    users = Counter(each["user"] for each in given)
    models = Counter(f"{each['model']} ({each['version']})" for each in given if each["kind"] == "answer")
    today = datetime.now(UTC).date().isoformat()
    return "\n".join(
        [
            "# Feedback of people on answers",
            "",
            f"Exported on {today} by alignlab from {len(given):,} records of {len(users):,} users; withdrawn feedback "
            "and answers whose texts were not stored are left out.",
            "",
            "| form | rows | fields |",
            "|---|---|---|",
            f"| preference | {counts['preference']:,} | prompt, chosen, rejected |",
            f"| prompt_completion | {counts['prompt_completion']:,} | prompt, completion |",
            f"| unpaired_preference | {counts['unpaired_preference']:,} | prompt, completion, label |",
            "",
            "Each row also has `feedback_id` and `annotator`, a pseudonym, so that a withdrawal can be followed up.",
            "",
            *(f"- {name}: {count:,} records" for name, count in models.most_common()),
            "",
            f"The most active user gave {max(users.values(), default=0) / max(len(given), 1):.0%} of the records.",
            "",
        ]
    )
