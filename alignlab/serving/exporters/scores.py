"""Feedback as scores of single answers, the form that MLflow and OpenTelemetry have for it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from alignlab.serving.store.records import Row
from alignlab.serving.store.tables import answers, items
from alignlab.serving.store.tables import feedback as table

TIE = 0.5  # the value of both answers of a comparison without a winner


class Score(NamedTuple):
    """One thing that a person said about an answer; `text` is the person's comment or correction."""

    answer: str  # its id
    name: str  # thumb, rating, harm, correction, comment, choice or rank
    value: float | None
    label: str | None
    text: str | None


class Exported(NamedTuple):
    """A record of feedback, the ids of the answers that it is about, and the stored rows of those that are stored."""

    feedback: Row
    subjects: Sequence[str]
    answers: Mapping[str, Row]


def read_subjects(connection: sa.Connection, feedback: Row) -> Exported:
    """Return a record of feedback with the answers that it is about."""
    subjects = [feedback["subject"]]
    if feedback["kind"] != "answer":
        candidates = connection.execute(sa.select(items.c.candidates).where(items.c.id == feedback["subject"])).scalar()
        subjects = [candidate["answer_id"] for candidate in candidates or ()]
    rows = connection.execute(sa.select(answers).where(answers.c.id.in_(subjects))).mappings()
    return Exported(feedback, subjects, {row["id"]: dict(row) for row in rows})


def withdrawals(connection: sa.Connection, user: str) -> list[Exported]:
    """Return all feedback of a user as if it were withdrawn now."""
    rows = connection.execute(sa.select(table).where(table.c.user == user, table.c.withdrawn.is_(None))).mappings()
    left = {"withdrawn": time.time(), "value": {}}
    return [read_subjects(connection, dict(row) | left) for row in rows.all()]


def scores(exported: Exported) -> Iterator[Score]:
    """Yield the scores of a record of feedback; one that was withdrawn has none."""
    feedback, value = exported.feedback, exported.feedback["value"]
    if feedback["withdrawn"]:
        return
    comment = value.get("comment")
    if feedback["kind"] == "answer":
        yield from of_answer(feedback["subject"], value)
    for answer in exported.subjects if "choice" in value else ():
        chosen = TIE if value["choice"] == "tie" else float(value["choice"] == answer)
        yield Score(answer, "choice", chosen, {TIE: "tie", 1.0: "chosen", 0.0: "rejected"}[chosen], comment)
    for answer, rank in value.get("ranks", {}).items():
        yield Score(answer, "rank", float(rank), None, comment)


def of_answer(answer: str, value: Row) -> Iterator[Score]:
    """Yield the scores of feedback on one answer; a comment explains the others, and stands alone without any."""
    comment = value.get("comment")
    if thumb := value.get("thumb"):
        yield Score(answer, "thumb", float(thumb == "up"), thumb, comment)
    if rating := value.get("rating"):
        yield Score(answer, "rating", float(rating), None, comment)
    for category in value.get("categories", ()):
        yield Score(answer, "harm", 1.0, category, comment)
    if correction := value.get("correction"):
        yield Score(answer, "correction", None, "corrected", correction)
    if comment and not {"thumb", "rating", "categories"} & {*value}:
        yield Score(answer, "comment", None, None, comment)
