"""Conversation turns from the notations of other frameworks: OpenAI, Anthropic, Gemini, ShareGPT, xtuner.

A turn's reasoning is kept in its text as `<think>\\n…\\n</think>\\n\\n`. A turn that is marked as not learned
(weight 0, `train: false`) is read as context.
"""

import re
from collections.abc import Mapping
from itertools import groupby
from typing import Any, Literal, NamedTuple

from alignlab.chat import Turn
from alignlab.data.hh_rlhf import join_turns
from alignlab.data.qualifiers import QUALIFIERS, ignoring, read_number, shown
from alignlab.data.row_fields import Broken, Draft, LeftOut, RowFields, decode, fields_of, note, pick, type_name

Fields = Mapping[str, Any]
Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
    "chatbot": "assistant", "ai": "assistant",
}  # fmt: skip
SPEAKER_KEYS = ("role", "from", "speaker")
CONTENT_KEYS = ("content", "value", "text", "parts")
REASONING = ("reasoning_content", "reasoning", "thinking", "think", "thought", "thoughts", "chain_of_thought", "cot")
LEARNED_KEYS = ("weight", "loss_weight", "train", "training", "trainable", "loss", "learn")
SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction")
SPAN_KEYS = ("train_detail", "training_detail", "loss_mask", "mask", "masked")  # which parts of a turn are learned
TEXT_PARTS = ("text", "input_text", "output_text")
TOOLS = ("tool_calls", "function_call", "tool_call_id", "tool_call")
EXCHANGE = ("input", "output")  # xtuner writes a question and its answer in one object
THINKING = "<think>\n{reasoning}\n</think>\n\n{text}"
JOINED = "turns of one speaker in a row, joined"
ENDS_WITH_USER = "a conversation that ends with the user, read as a prompt"
AFTER_LEARNED = "turns after the last learned answer, left out"
NOT_LEARNED = "no answer of the conversation is to be learned (weight 0)"
BROKEN_TURNS = re.compile(r"\A\s*\[\s*\{\s*['\"](?:role|from)['\"]\s*:")


class MarkedTurn(NamedTuple):
    """A turn, and whether an answer of it is to be learned."""

    turn: Turn
    learned: bool


def parse_turns(fields: Fields, name: str) -> list[Turn]:
    """Return a field as turns, in any of the notations; join consecutive turns of one speaker."""
    turns = [marked.turn for marked in marked_turns(fields, name)]
    joined = join_turns(turns)
    if len(joined) < len(turns):
        note(fields, JOINED)
    return joined


def marked_turns(fields: Fields, name: str) -> list[MarkedTurn]:
    """Return a field as turns, each with whether it is to be learned; a single turn counts as a list of one."""
    turns = decode(fields.get(name))
    if isinstance(turns, Mapping):
        turns = [turns]
    if not isinstance(turns, list):
        raise Broken(name, f"the field is {type_name(turns)}", "a list of turns")
    if turns and all(isinstance(turn, str) for turn in turns):
        raise Broken(name, "the field is a list of texts", "one text, or a list of turns")
    return [marked for turn in turns for marked in _turn(fields_of(fields), turn, name)]


def holds_turns(value: Any) -> bool:
    """Return whether a value is turns, as a list, one object, or the text of either."""
    if isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
        return False
    decoded = decode(value)
    turns = [decoded] if isinstance(decoded, Mapping) else decoded
    if isinstance(turns, list):
        keys = {*SPEAKER_KEYS, *EXCHANGE} if isinstance(value, str) else set()
        return bool(turns) and all(isinstance(turn, Mapping) and (not keys or keys & set(turn)) for turn in turns)
    return isinstance(value, str) and bool(BROKEN_TURNS.match(value))  # a fault, not text


def _turn(fields: RowFields, turn: Any, name: str) -> list[MarkedTurn]:
    """Read one turn; an exchange of xtuner gives up to three."""
    if not isinstance(turn, Mapping):
        raise Broken(name, f"a turn is {type_name(turn)}", "{role, content} or {from, value}")
    part = fields.part(name, turn)
    key = pick(part, SPEAKER_KEYS)
    if key is None:
        if any(part.holds(side) for side in EXCHANGE):
            return _exchange(part, name)
        keys = ", ".join(str(key)[:30] for key in list(turn)[:6]) or "none"
        raise Broken(name, f"a turn has the keys {keys}", "{role, content}, {from, value} or {input, output}")
    speaker = part[key].strip().lower() if isinstance(part[key], str) else ""
    if speaker not in ROLES:
        raise Broken(name, f"the speaker {str(part[key])[:40]!r} is unknown", "system, user (human) or assistant (gpt)")
    if span := next((span for span in SPAN_KEYS if part.holds(span)), ""):
        now = f"leave it out with dataset.ignore=[{span}] to learn whole turns"
        raise Broken(f"{name}.{span}", "parts of a turn cannot be left out", "whole turns", now)
    role = ROLES[speaker]
    _check_turn(part, name, role)
    content = _content(part, name)
    learned = _is_learned(part, name, role)
    if role == "assistant" and (reasoning := take_reasoning(part)):
        content = think(reasoning, content)
    return [MarkedTurn({"role": role, "content": content}, learned)]


def _check_turn(part: RowFields, name: str, role: Role) -> None:
    """Raise a fault if a turn calls a tool, is no final answer, or has a rating of its own."""
    if len(part) == 2:
        return  # a speaker and a text
    if tool := next(iter(part.held(TOOLS)), ""):
        raise Broken(
            f"{name}.{tool}", "the turn calls a tool, and conversations here have none", "text", ignoring(tool)
        )
    if part.holds("channel") and part["channel"] != "final":
        reason = f"the turn is in the channel {shown(part['channel'])}, and only final answers are learned"
        raise Broken(f"{name}.channel", reason, "`thinking` in the answer's turn", ignoring("channel"))
    inner = [fields_of(value) for value in part.values_by_name.values() if isinstance(value, Mapping)]
    rated = [rating for one in (part, *inner) for rating in one.held(QUALIFIERS)]
    if role == "assistant" and rated:
        reason = "the field rates one answer, and good and bad ones would be learned alike"
        raise Broken(f"{name}.{rated[0]}", reason, "0 or 1 as the `weight` of the turn", ignoring(*rated))


def _content(part: RowFields, name: str) -> str:
    key = pick(part, CONTENT_KEYS)
    content = part[key] if key else None
    if isinstance(content, list):
        content = _joined_parts(part, content, name, key or "")
    if content is None and any(part.holds(key) for key in REASONING):
        content = ""
    if not isinstance(content, str):
        raise Broken(name, f"the content of a turn is {type_name(content)}", "text")
    return content


def _joined_parts(part: RowFields, pieces: list[Any], name: str, field: str) -> str:
    """Return the text of the parts in a field of a turn, with their reasoning before it."""
    thoughts, texts = [], []
    for piece in pieces:
        inner = part.part(field, piece) if isinstance(piece, Mapping) else None
        if inner and (thought := _thought(inner)):
            thoughts.append(thought)
        else:
            texts.append(piece if isinstance(piece, str) else _part_text(inner, piece, name))
    return think("\n\n".join(thoughts), "".join(texts)) if thoughts else "".join(texts)


def _thought(inner: RowFields) -> str:
    """Return the reasoning in a part of a turn (Anthropic's `thinking`, Gemini's `thought`); empty if it has none."""
    if inner.get("type") not in (None, "text", "thinking"):
        return ""
    is_thought = inner.peek("thought") is True and inner["thought"]
    text = inner.get("text" if is_thought else "thinking")
    return text.strip() if isinstance(text, str) else ""


def _part_text(inner: RowFields | None, piece: Any, name: str) -> str:
    """Return the text of one part of a turn; an image, a sound or a film gives none if it is ignored."""
    kind = inner.get("type", "text") if inner else None
    key = pick(inner, ("text", "value")) if inner and kind in TEXT_PARTS else None
    text = inner[key] if inner and key else None
    if isinstance(text, str):
        return text
    if isinstance(piece, Mapping) and "type" not in piece:
        kind = next(iter(piece), "")  # Bedrock and Gemini name the kind by the field
    if media := next((word for word in ("image", "audio", "video") if word in str(kind)), ""):
        if inner is not None and {f"{media}s", media} & inner.ignored:
            return ""
        raise Broken(name, f"a turn holds {media}s, and models here read text", "text", f"dataset.ignore=[{media}s]")
    raise Broken(name, f"a part of a turn is {str(kind)[:30] if kind else type_name(piece)}", "a part of type text")


def _is_learned(part: RowFields, name: str, role: Role) -> bool:
    key = pick(part, LEARNED_KEYS)
    if key is None or not part.holds(key):
        return True
    if role != "assistant" and read_number(part.peek(key)) is None:
        return True  # only answers are learned, and what the field of another turn means is not known
    weight = read_number(part[key])
    if weight not in (0, 1):
        raise Broken(f"{name}.{key}", f"the weight of a turn is {str(part[key])[:20]}", "0 or 1, true or false")
    return weight == 1 or role != "assistant"


def _exchange(part: RowFields, name: str) -> list[MarkedTurn]:
    turns: list[MarkedTurn] = []
    sides: tuple[tuple[tuple[str, ...], Role], ...] = (
        (SYSTEMS, "system"),
        (("input",), "user"),
        (("output",), "assistant"),
    )
    for keys, role in sides:
        key = pick(part, keys)
        content = part[key] if key else None
        if content is not None and not isinstance(content, str):
            raise Broken(name, f"the {role} turn is {type_name(content)}", "text")
        if content and content.strip():
            turns.append(
                MarkedTurn({"role": role, "content": content}, role != "assistant" or _is_learned(part, name, role))
            )
    return turns


def take_reasoning(fields: RowFields) -> str:
    """Return the reasoning that a row or a turn holds in a field of its own; empty if there is none."""
    name = next((name for name in fields.held(REASONING) if name not in fields.read), None)
    if name is None:
        return ""
    if not isinstance(fields[name], str):
        raise Broken(name, f"the field is {type_name(fields[name])}", "text")
    return str(fields[name]).strip()


def think(reasoning: str, text: str) -> str:
    """Return an answer with its reasoning before it."""
    return text if reasoning in text else THINKING.format(reasoning=reasoning, text=text)


def conversation(fields: Fields, name: str) -> Draft:
    """Split a conversation at its last learned answer; one that ends with the user is a prompt."""
    marked = marked_turns(fields, name)
    answers = [index for index, one in enumerate(marked) if one.turn["role"] == "assistant"]
    learned = [index for index in answers if marked[index].learned]
    if answers and not learned:
        raise LeftOut(NOT_LEARNED)
    if len(learned) < len(answers) and marked[-1].turn["role"] == "assistant" and learned[-1] < len(marked) - 1:
        note(fields, AFTER_LEARNED)
        marked = marked[: learned[-1] + 1]
    turns = with_system(fields, [one.turn for one in marked])
    joined = join_turns(turns)
    if len(joined) < len(turns):
        note(fields, JOINED)
    if len(joined) == 1 and answers:
        raise Broken(name, "the conversation is a single answer", "a turn of the user first")
    if not joined or joined[-1]["role"] != "assistant":
        if answers:
            note(fields, ENDS_WITH_USER)
        return Draft(joined, [])
    is_learned = [True] * (len(turns) - len(marked)) + [one.learned for one in marked]
    context = context_answers(turns, is_learned)
    if context is None:
        weight = next(key for part in fields_of(fields).parts for key in part.held(LEARNED_KEYS))
        reason = "of turns of one speaker in a row, some are learned and some are not"
        raise Broken(f"{name}.{weight}", reason, f"one `{weight}`", ignoring(weight))
    return Draft(joined[:-1], [joined[-1]["content"]], context=context)


def context_answers(turns: list[Turn], learned: list[bool]) -> tuple[int, ...] | None:
    """Return the places of a prompt's answers that are not to be learned, from its end (-1 is its last turn).

    `turns` end with the completion. Consecutive turns of one speaker count as one, as `join_turns` makes them. None
    where some turns of the completion are learned and others are not.
    """
    answers = [
        role != "assistant" or all(is_learned for _, is_learned in one)
        for role, one in groupby(zip(turns, learned, strict=True), key=lambda marked: marked[0]["role"])
    ]
    if not answers[-1]:
        return None
    return tuple(place - len(answers) + 1 for place, is_learned in enumerate(answers[:-1]) if not is_learned)


def with_system(fields: Fields, turns: list[Turn]) -> list[Turn]:
    """Put the row's system prompt before its turns, unless they begin with the same one."""
    system = system_turns(fields)
    return turns if system and turns[:1] == system else [*system, *turns]


def system_turns(fields: Fields) -> list[Turn]:
    """Return the row's system prompt as a list of one turn; empty if it has none."""
    held = fields_of(fields).held(SYSTEMS)
    if not held:
        return []
    row, name = fields_of(fields), held[0]
    value = row[name]
    if isinstance(value, list):
        value = _joined_parts(row, value, name, name)
    elif isinstance(value, Mapping):  # one turn
        part = row.part(name, value)
        part.get("role")
        value = _content(part, name)
    if not isinstance(value, str):
        raise Broken(name, f"the field is {type_name(value)}", "text")
    return [{"role": "system", "content": value}]
