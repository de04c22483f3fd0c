"""What is stored: answers, and people's feedback on them; a function is one operation of the writer."""

import hashlib
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

import sqlalchemy as sa

from alignlab.chat import Turn
from alignlab.serving.problems import Problem, missing
from alignlab.serving.store.tables import answers, feedback, idempotency, items, keys

Row = dict[str, Any]


class User(NamedTuple):
    """Who asks: a pseudonym, and what the key allows; `label` includes `use`, `administer` includes both."""

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Return whether the user's role includes another one."""
        return ROLES.index(role) <= ROLES.index(self.role)


DELETED = "(deleted)"  # stands for the name of a user who was deleted
ROLES = ("use", "label", "administer")


class Candidate(TypedDict):
    """One of the answers of an item."""

    answer_id: str
    completion: str
    model: str
    version: str


class Answer(NamedTuple):
    """A completion that was served."""

    id: str
    user: str
    model: str
    version: str
    prompt: Sequence[Turn]
    completion: str
    finish_reason: str
    sampling: Mapping[str, Any]


def new_id(prefix: str) -> str:
    """Return an id that nobody can guess."""
    return f"{prefix}-{uuid.uuid4().hex}"


def hash_of(value: Any) -> str:
    """Return a hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def add_answer(connection: sa.Connection, answer: Answer, with_text: bool) -> None:
    """Store an answer; its texts only where the setting says so."""
    row = answer._asdict() | {"created": time.time(), "prompt_hash": hash_of(list(answer.prompt))}
    if not with_text:
        row |= {"prompt": None, "completion": None}
    connection.execute(answers.insert(), row)


def give_feedback(
    connection: sa.Connection, user: User, kind: str, subject: str, value: Mapping[str, Any], key: str | None
) -> Row:
    """Store or overwrite a user's feedback on an answer or item; return it.

    With an idempotency key that was used before, return the first response; raises a `Problem` where the request
    differs, or where there is no such answer or item.
    """
    request = hash_of([kind, subject, dict(value)])
    if key and (first := repeated(connection, user, key, request)):
        return first
    check_subject(connection, user, kind, subject, value)
    mine = sa.and_(feedback.c.kind == kind, feedback.c.subject == subject, feedback.c.user == user.name)
    before = connection.execute(sa.select(feedback).where(mine)).mappings().first()
    now = time.time()
    row = {"kind": kind, "subject": subject, "user": user.name, "updated": now, "withdrawn": None, "value": dict(value)}
    if before:
        row |= {"id": before["id"], "created": before["created"]}
        connection.execute(feedback.update().where(feedback.c.id == before["id"]).values(row))
    else:
        row |= {"id": new_id("fb"), "created": now}
        connection.execute(feedback.insert(), row)
    if key:
        stored = {"user": user.name, "key": key, "created": now, "request_hash": request, "response": row}
        connection.execute(idempotency.insert(), stored)
    return row


def repeated(connection: sa.Connection, user: User, key: str, request: str) -> Row | None:
    """Return the response to an earlier request with the same idempotency key; None where there was none."""
    same = sa.and_(idempotency.c.user == user.name, idempotency.c.key == key)
    first = connection.execute(sa.select(idempotency).where(same)).mappings().first()
    if first is None:
        return None
    if first["request_hash"] != request:
        raise Problem(409, "idempotency_key_reused", "this Idempotency-Key was used for another request")
    response: Row = first["response"]
    return response


def check_subject(connection: sa.Connection, user: User, kind: str, subject: str, value: Mapping[str, Any]) -> None:
    """Raise a `Problem` where an answer or item is not there for the user, or where the value does not fit it."""
    if kind == "answer":
        owner = connection.execute(sa.select(answers.c.user).where(answers.c.id == subject)).scalar()
        if owner is None or not (owner == user.name or user.may("label")):
            raise missing(f"the answer {subject}")
        return
    item = connection.execute(sa.select(items).where(items.c.id == subject)).mappings().first()
    if item is None or not (item["user"] == user.name or user.may("label")):
        raise missing(f"the item {subject}")
    if item["kind"] != kind:
        raise Problem(409, "conflict", f"the item {subject} is of the kind {item['kind']}, not {kind}")
    named = {candidate["answer_id"] for candidate in item["candidates"]}
    if kind == "label" and {*value["ranks"]} != named:
        raise Problem(409, "conflict", "ranks: give a rank to each answer of the item, and to no other")
    if kind == "compare" and value["choice"] not in {*named, "tie"}:
        raise Problem(409, "conflict", "choice: name one of the item's answers, or tie")


def withdraw(connection: sa.Connection, user: User, feedback_id: str) -> Row:
    """Withdraw feedback: its value is removed, its id stays; return what is left."""
    row = get_feedback(connection, user, feedback_id)
    left: Row = {"value": {}, "withdrawn": row["withdrawn"] or time.time()}
    connection.execute(feedback.update().where(feedback.c.id == feedback_id).values(left))
    forget = sa.and_(idempotency.c.user == row["user"], idempotency.c.created >= row["created"])
    for key, response in connection.execute(sa.select(idempotency.c.key, idempotency.c.response).where(forget)):
        if response["id"] == feedback_id:
            emptied = response | left
            mine = sa.and_(idempotency.c.user == row["user"], idempotency.c.key == key)
            connection.execute(idempotency.update().where(mine).values(response=emptied))
    return row | left


def get_feedback(connection: sa.Connection, user: User, feedback_id: str) -> Row:
    """Return a record of feedback; raises a `Problem` where it is not there, or is another user's."""
    row = connection.execute(sa.select(feedback).where(feedback.c.id == feedback_id)).mappings().first()
    if row is None or not (row["user"] == user.name or user.may("administer")):
        raise missing(f"the feedback {feedback_id}")
    return dict(row)


def delete_user(connection: sa.Connection, name: str) -> dict[str, int]:
    """Delete all that is stored of a user, and revoke the keys; return the number of rows by table."""
    deleted = {
        table.name: connection.execute(table.delete().where(table.c.user == name)).rowcount
        for table in (feedback, answers, items, idempotency)
    }
    forget = keys.update().where(keys.c.user == name).values(user=DELETED, revoked=time.time())  # stays closed
    return deleted | {"keys": connection.execute(forget).rowcount}


def expire(connection: sa.Connection, before: float) -> int:
    """Delete answers, items, idempotency keys and feedback that are older; return the number of rows."""
    ages = ((answers, answers.c.created), (items, items.c.created), (idempotency, idempotency.c.created))
    deleted = [connection.execute(table.delete().where(age < before)).rowcount for table, age in ages]
    return sum(deleted) + connection.execute(feedback.delete().where(feedback.c.updated < before)).rowcount
