"""Message trees (Open Assistant): as nested objects, or as flat rows that name their parent.

Each user message with answers is a row: the conversation up to it, and its answers by rank. Answers without a rank are
demonstrations of their own, since nothing says which is better. A user message without an answer is a prompt.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from alignlab.chat import Turn
from alignlab.data.jsonl import Record
from alignlab.data.qualifiers import read_number, shown
from alignlab.data.rejects import Reject
from alignlab.data.row_fields import Broken, Draft, RowFields, fields_of, note, parse_text, pick, type_name
from alignlab.data.turns import ENDS_WITH_USER, ROLES
from alignlab.data.verdicts import rank_answers

IDS = ("message_id", "user_message_id")
PARENTS = ("parent_id", "parent_message_id")
TEXTS = ("text", "content")
LEFT_OUT = "a message of a tree that is deleted or failed its review"
JOINED = "a message that belongs to the conversation of another row"
DEEPEST = 200


class Node(NamedTuple):
    """One message of a tree with its replies."""

    fields: RowFields
    role: str
    text: str
    replies: list["Node"]


class Assembled(NamedTuple):
    """A record of one tree, and the number of records that it was put together from."""

    record: Record | Reject
    size: int


def is_flat(fields: Mapping[str, Any]) -> bool:
    """Return whether a row is one message that names its parent."""
    row = fields_of(fields)
    return all(any(name in row for name in names) for names in (IDS, PARENTS, ("role",), TEXTS))


def assemble(records: Iterable[Record | Reject]) -> Iterator[Assembled]:
    """Yield one record for each tree of flat messages; a message whose parent is missing is a reject."""
    roots: list[tuple[Record, dict[str, Any]]] = []
    nodes: dict[str, dict[str, Any]] = {}
    replies: list[tuple[Record, str, dict[str, Any]]] = []
    for record in records:
        if isinstance(record, Reject):
            yield Assembled(record, 1)
            continue
        row = fields_of(record.fields)
        key, parent = (row.get(pick(row, names) or names[0]) for names in (IDS, PARENTS))
        used = {row.original(pick(row, names) or names[0]) for names in (IDS, PARENTS)}
        node = {name: value for name, value in record.fields.items() if name not in used} | {"replies": []}
        if key is None or str(key) in nodes:
            yield Assembled(
                Reject(record.file, record.line, IDS[0], "the id is missing or not unique", "one id each"), 1
            )
            continue
        nodes[str(key)] = node
        if parent is None or str(parent).strip() in ("", "nan", "None"):
            roots.append((record, node))
        else:
            replies.append((record, str(parent), node))
    for record, parent, node in replies:
        if parent in nodes:
            nodes[parent]["replies"].append(node)
        else:
            reason = f"the parent {parent[:40]!r} is not in the file"
            yield Assembled(Reject(record.file, record.line, PARENTS[0], reason, "every message's parent"), _size(node))
    reached = 0
    for record, node in roots:
        reached += (size := _size(node))
        yield Assembled(record._replace(fields={"message_tree_id": "", "prompt": node}), size)
    reached += sum(_size(node) for _, parent, node in replies if parent not in nodes)
    if reached < len(nodes):
        record = replies[0][0]
        reason = f"{len(nodes) - reached:,} messages name each other as parents"
        yield Assembled(Reject(record.file, record.line, PARENTS[0], reason, "trees"), len(nodes) - reached)


def _size(node: Mapping[str, Any]) -> int:
    waiting, size = [node], 0
    while waiting:
        size += 1
        waiting += waiting.pop()["replies"]
    return size


def parse_tree(fields: Mapping[str, Any]) -> list[Draft]:
    """Parse a tree to one draft for each user message, with its answers by rank."""
    row = fields_of(fields)
    if not isinstance(row["prompt"], Mapping):
        raise Broken("prompt", f"the field is {type_name(row['prompt'])}", "a message with its replies")
    drafts = list(_drafts(row, _node(row, row["prompt"]), []))
    if not drafts:
        raise Broken("prompt", "the tree has no user message", "a message of the user")
    return drafts


def _node(row: RowFields, message: Any, depth: int = 0) -> Node:
    if not isinstance(message, Mapping):
        raise Broken("prompt", f"a message is {type_name(message)}", "an object with role and text")
    if depth > DEEPEST:
        raise Broken("prompt", f"the tree is deeper than {DEEPEST} messages", "fewer")
    part = row.part("prompt.replies" if depth else "prompt", message)
    replies = part.get("replies") or []
    if not isinstance(replies, list):
        raise Broken("prompt.replies", f"the field is {type_name(replies)}", "a list of messages")
    text, role = parse_text(part, TEXTS), str(part.get("role")).lower()
    return Node(part, role, text, [_node(row, reply, depth + 1) for reply in replies])


def _drafts(row: RowFields, node: Node, before: list[Turn]) -> Iterator[Draft]:
    """Yield the drafts of a message and of the messages below it."""
    role = ROLES.get(node.role)
    if role is None:
        raise Broken("prompt", f"the role {node.role[:40]!r} is unknown", "prompter or assistant")
    turns: list[Turn] = [*before, {"role": role, "content": node.text}]
    kept = [reply for reply in node.replies if not _is_left_out(reply)]
    for _ in range(len(node.replies) - len(kept)):
        note(row, LEFT_OUT)
    if role == "user":
        yield from _answers(row, turns, kept)
    for reply in kept:
        yield from _drafts(row, reply, turns)


def _answers(row: RowFields, turns: list[Turn], replies: list[Node]) -> Iterator[Draft]:
    """Yield the drafts of a user message: its ranked answers as one, each other answer as one."""
    if not replies:
        if len(turns) > 1:
            note(row, ENDS_WITH_USER)
        yield Draft(turns, [])
    ranks = [_rank(reply) for reply in replies]
    texts = [reply.text for reply in replies]
    ranked = [(-rank, texts[place]) for place, rank in enumerate(ranks) if rank is not None]
    if len(ranked) > 1:
        yield rank_answers(row, turns, [text for _, text in ranked], [score for score, _ in ranked])
    alone = [place for place, rank in enumerate(ranks) if rank is None or len(ranked) == 1]
    yield from (Draft(turns, [texts[place]]) for place in alone)


def _rank(node: Node) -> float | None:
    """Return the rank of an answer; None if it has none."""
    if not node.fields.holds("rank"):
        return None
    if (rank := read_number(node.fields["rank"])) is None:
        raise Broken("prompt.rank", f"{shown(node.fields['rank'])} is not a rank", "a number")
    return rank


def _is_left_out(node: Node) -> bool:
    deleted, review = read_number(node.fields.get("deleted")), read_number(node.fields.get("review_result"))
    return deleted == 1 or review == 0
