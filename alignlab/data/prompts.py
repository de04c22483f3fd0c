"""Prompts and completions from the fields of a row: text or turns, with system prompt, history and context."""

from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.chat import Turn
from alignlab.data.hh_rlhf import join_turns
from alignlab.data.row_fields import Broken, decode, fields_of, note, parse_text, pick, type_name
from alignlab.data.transcripts import transcript_turns
from alignlab.data.turns import JOINED, holds_turns, parse_turns, system_turns, with_system

Fields = Mapping[str, Any]
PROMPTS = ("prompt", "question", "query", "instruction", "problem", "input", "inputs", "input_text")
COMPLETIONS = ("completion", "response", "output", "answer", "solution", "target", "targets", "output_text")
CONTEXTS = ("input", "context")
EARLIER = (
    "context",
    "history",
    "conversation",
    "conversations",
    "messages",
)  # the prompt, where no field of PROMPTS is


def parse_prompt(fields: Fields, names: Sequence[str] = PROMPTS) -> list[Turn]:
    """Return the prompt: turns, a transcript, or text with its system prompt, history and context."""
    row = fields_of(fields)
    name = pick(row, names) or names[0]
    value = row.get(name)
    is_text = isinstance(value, str)  # asked first: that a text is no Mapping takes long to find out
    if not is_text and isinstance(value, Mapping) and isinstance(value.get("full_text"), str):  # WebGPT
        text = parse_text(row.part(name, value), ("full_text",))
        return [*system_turns(row), {"role": "user", "content": text}]
    if not is_text and isinstance(value, Mapping) and isinstance(value.get("messages"), list):  # OpenAI's preferences
        return with_system(row, parse_turns(row.part(name, value), "messages"))
    if holds_turns(value) if is_text else isinstance(value, list | Mapping):
        return with_system(row, [*_earlier(row, name), *parse_turns(row, name)])
    if is_text and (turns := transcript_turns(value)):
        return with_system(row, _without_opening(turns))
    context_name = next((other for other in row.held(CONTEXTS) if other != name), "")
    if context_name and holds_turns(row.peek(context_name)) and not isinstance(row.peek(context_name), str):
        before, context = parse_turns(row, context_name), ""
    else:
        before, context = [], row[context_name] if context_name else ""
    if not isinstance(context, str):
        raise Broken(context_name, f"the field is {type_name(context)}", "text")
    question = parse_text(row, (name,)) + (f"\n\n{context}" if context.strip() else "")
    asked: list[Turn] = [*system_turns(row), *_history(row), *before, {"role": "user", "content": question}]
    joined = join_turns(asked) if before else asked
    if len(joined) < len(asked):
        note(row, JOINED)
    return joined


def _earlier(fields: Fields, name: str) -> list[Turn]:
    """Return the turns of `context` before a prompt that is turns itself."""
    row = fields_of(fields)
    if name == "context" or not row.holds("context") or not holds_turns(row.peek("context")):
        return []
    return parse_turns(row, "context")


def _without_opening(turns: list[Turn]) -> list[Turn]:
    """Return a transcript without the empty assistant turn that its end opens."""
    return turns[:-1] if turns[-1]["role"] == "assistant" and not turns[-1]["content"] else turns


def _history(fields: Fields) -> list[Turn]:
    """Return earlier turns, which Alpaca's `history` lists as [[question, answer], …]."""
    row = fields_of(fields)
    if not row.holds("history") or "history" in row.read:
        return []
    history = decode(row["history"])
    if not isinstance(history, list):
        raise Broken("history", f"the field is {type_name(history)}", "[[question, answer], …]")
    if all(isinstance(turn, Mapping) for turn in history):
        return parse_turns(row, "history")
    turns: list[Turn] = []
    for exchange in history:
        if not isinstance(exchange, list) or len(exchange) != 2 or not all(isinstance(text, str) for text in exchange):
            raise Broken("history", "the field is not a list of exchanges", "[[question, answer], …]")
        turns += [{"role": "user", "content": exchange[0]}, {"role": "assistant", "content": exchange[1]}]
    return turns


def parse_completion(fields: Fields, *names: str) -> str:
    """Return a completion that is written as text, as one turn, or as a list of one turn."""
    name = pick(fields, names) or names[0]
    value = fields.get(name)
    if (isinstance(value, str) or not isinstance(value, list | Mapping)) and not holds_turns(value):
        return parse_text(fields, (name,))
    turns = parse_turns(fields, name)
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise Broken(name, "the field is not one assistant turn", "a completion")
    return turns[0]["content"]
