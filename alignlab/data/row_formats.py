"""The formats of public data sets, recognised by the fields of their rows.

Every format is parsed to a `Draft`: a prompt (turns) and completions, best first. A row without a completion is a
prompt, with one a demonstration, with two a pair, with more a ranking; a completion without a prompt is plain text.
A file has the format that most of its first rows match, where a row matches the first of `FORMATS` whose required
fields it has.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from alignlab.chat import Turn
from alignlab.data.hh_rlhf import join_turns, parse_transcript

Fields = Mapping[str, Any]
Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
}  # fmt: skip
PROMPTS = ("prompt", "question", "query", "instruction", "input")
COMPLETIONS = ("completion", "response", "output", "answer")
RANKINGS = ("completions", "responses", "answers", "ranking")
CONTEXTS = ("input", "context")
SUMMARISE = "Summarize the following conversation.\n\n{dialogue}"


class Draft(NamedTuple):
    """The prompt and the completions of a row before validation; `notes` are faults that were tolerated."""

    prompt: list[Turn]
    completions: list[str]
    notes: tuple[str, ...] = ()


class Broken(Exception):
    """A row that does not match its format: the field, the reason, and what was expected."""

    def __init__(self, field: str, reason: str, expected: str) -> None:
        self.field, self.reason, self.expected = field, reason, expected
        super().__init__(f"{field}: {reason}; expected {expected}")


class RowFormat(NamedTuple):
    """A format: its name, its required fields (groups of alternative names), and the parser of a row."""

    name: str
    required: tuple[tuple[str, ...], ...]
    parse: Callable[[Fields], list[Draft]]

    def matches(self, fields: Fields) -> bool:
        """Return whether a row has the required fields."""
        return all(any(name in fields for name in names) for names in self.required)

    def __str__(self) -> str:
        return f"{self.name} ({', '.join('|'.join(names) for names in self.required)})"


def detect(rows: Iterable[Fields]) -> RowFormat | None:
    """Return the format that most rows match; None if no row matches any."""
    counts = Counter(next((known.name for known in FORMATS.values() if known.matches(row)), "") for row in rows)
    counts.pop("", None)
    return FORMATS[counts.most_common(1)[0][0]] if counts else None


def messages_preference(fields: Fields) -> list[Draft]:
    """Parse two whole conversations that differ in their last turn (LLaMA-Factory)."""
    return [_conversation_pair(parse_turns(fields, "chosen_messages"), parse_turns(fields, "rejected_messages"))]


def sharegpt_preference(fields: Fields) -> list[Draft]:
    """Parse a conversation and two possible next turns (LLaMA-Factory's ShareGPT)."""
    prompt = _system_turns(fields) + parse_turns(fields, "conversations")
    return [Draft(prompt, [_completion(fields, "chosen"), _completion(fields, "rejected")])]


def preference(fields: Fields) -> list[Draft]:
    """Parse a prompt and two completions, as text or as turns; the turns may repeat the prompt (UltraFeedback)."""
    if all(isinstance(fields.get(side), list) for side in ("chosen", "rejected")):
        chosen, rejected = parse_turns(fields, "chosen"), parse_turns(fields, "rejected")
        if len(chosen) > 1:
            return [_conversation_pair(chosen, rejected)]
    return [Draft(parse_prompt(fields), [_completion(fields, "chosen"), _completion(fields, "rejected")])]


def hh_rlhf(fields: Fields) -> list[Draft]:
    """Parse two whole conversations, as HH-RLHF's transcripts or as turns."""
    if isinstance(fields.get("chosen"), list):
        return [_conversation_pair(parse_turns(fields, "chosen"), parse_turns(fields, "rejected"))]
    chosen, rejected = _transcript(fields, "chosen"), _transcript(fields, "rejected")
    _check_same_prompt(chosen.prompt, rejected.prompt)
    notes = tuple(sorted({*chosen.notes, *rejected.notes}))
    return [Draft(chosen.prompt, [*chosen.completions, *rejected.completions], notes)]


def ranking(fields: Fields) -> list[Draft]:
    """Parse a prompt and several completions, best first."""
    field = next(name for name in RANKINGS if name in fields)
    completions = fields[field]
    if not isinstance(completions, list) or not all(isinstance(text, str) for text in completions):
        raise Broken(field, "the field is not a list of texts", "a list of completions, best first")
    if len(completions) < 2:
        raise Broken(field, f"the number of completions is {len(completions)}", "two or more, best first")
    return [Draft(parse_prompt(fields), list(completions))]


def messages(fields: Fields) -> list[Draft]:
    """Parse a conversation in OpenAI's format; one that ends with the user is a prompt."""
    return [_conversation(parse_turns(fields, "messages"))]


def sharegpt(fields: Fields) -> list[Draft]:
    """Parse a conversation in ShareGPT's format."""
    return [_conversation(_system_turns(fields) + parse_turns(fields, "conversations"))]


def self_instruct(fields: Fields) -> list[Draft]:
    """Parse an instruction with several instances of input and output; each instance is a row."""
    instances = fields["instances"]
    if not isinstance(instances, list) or not instances or not all(isinstance(item, Mapping) for item in instances):
        raise Broken("instances", "the field is not a list of objects", "a list of {input, output}")
    return [draft for item in instances for draft in alpaca({"instruction": fields["instruction"], **item})]


def dialogsum(fields: Fields) -> list[Draft]:
    """Parse a dialogue and its summary (DialogSum)."""
    request = SUMMARISE.format(dialogue=parse_text(fields, ("dialogue",)))
    return [Draft([{"role": "user", "content": request}], [parse_text(fields, ("summary",))])]


def alpaca(fields: Fields) -> list[Draft]:
    """Parse an instruction, its optional input, system prompt and history, and an output (Alpaca, Dolly)."""
    return [Draft(parse_prompt(fields), [_completion(fields, *COMPLETIONS)])]


def transcript(fields: Fields) -> list[Draft]:
    """Parse one conversation in HH-RLHF's format."""
    return [_transcript(fields, "transcript")]


def plain_text(fields: Fields) -> list[Draft]:
    """Parse text without a prompt."""
    return [Draft([], [parse_text(fields, ("text",))])]


def prompt_only(fields: Fields) -> list[Draft]:
    """Parse a prompt without a completion."""
    return [Draft(parse_prompt(fields), [])]


FORMATS = {
    known.name: known
    for known in (
        RowFormat("messages_preference", (("chosen_messages",), ("rejected_messages",)), messages_preference),
        RowFormat("sharegpt_preference", (("conversations",), ("chosen",), ("rejected",)), sharegpt_preference),
        RowFormat("preference", (PROMPTS, ("chosen",), ("rejected",)), preference),
        RowFormat("hh_rlhf", (("chosen",), ("rejected",)), hh_rlhf),
        RowFormat("ranking", (PROMPTS, RANKINGS), ranking),
        RowFormat("messages", (("messages",),), messages),
        RowFormat("sharegpt", (("conversations",),), sharegpt),
        RowFormat("self_instruct", (("instruction",), ("instances",)), self_instruct),
        RowFormat("dialogsum", (("dialogue",), ("summary",)), dialogsum),
        RowFormat("alpaca", (("instruction",), COMPLETIONS), alpaca),
        RowFormat("prompt_completion", (PROMPTS, COMPLETIONS), alpaca),
        RowFormat("transcript", (("transcript",),), transcript),
        RowFormat("text", (("text",),), plain_text),
        RowFormat("prompts", (("prompt", "question", "instruction"),), prompt_only),
    )
}


def parse_text(fields: Fields, names: Sequence[str]) -> str:
    """Return the first of these fields that the row has; it must be text; null counts as empty text."""
    name = next((name for name in names if name in fields), None)
    if name is None:
        raise Broken(names[0], "the field is missing", "text")
    value = fields[name]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Broken(name, f"the field is {_type_name(value)}", "text")
    return value


def parse_turns(fields: Fields, name: str) -> list[Turn]:
    """Return a field as turns, written in OpenAI's or ShareGPT's format; join consecutive turns of one speaker."""
    turns = fields.get(name)
    if not isinstance(turns, list):
        raise Broken(name, f"the field is {_type_name(turns)}", "a list of turns")
    return join_turns([_turn(turn, name) for turn in turns])


def parse_prompt(fields: Fields) -> list[Turn]:
    """Return the prompt: turns as they are, or text with its system prompt, history and context."""
    name = next((name for name in PROMPTS if name in fields), PROMPTS[0])
    if isinstance(fields.get(name), list):
        return parse_turns(fields, name)
    context = next((fields[other] for other in CONTEXTS if other != name and fields.get(other)), "")
    if not isinstance(context, str):
        raise Broken("input", f"the field is {_type_name(context)}", "text")
    question = parse_text(fields, (name,)) + (f"\n\n{context}" if context.strip() else "")
    return [*_system_turns(fields), *_history(fields), {"role": "user", "content": question}]


def _turn(turn: Any, field: str) -> Turn:
    if not isinstance(turn, Mapping):
        raise Broken(field, f"a turn is {_type_name(turn)}", "{role, content} or {from, value}")
    content, speaker = turn.get("content", turn.get("value")), turn.get("role", turn.get("from"))
    if not isinstance(speaker, str) or speaker.lower() not in ROLES:
        raise Broken(field, f"the speaker {str(speaker)[:40]!r} is unknown", "system, user (human) or assistant (gpt)")
    if isinstance(content, list):
        parts = [_part_text(part) for part in content]
        content = None if None in parts else "".join(map(str, parts))
    if not isinstance(content, str):
        raise Broken(field, f"the content of a turn is {_type_name(content)}", "text")
    return {"role": ROLES[speaker.lower()], "content": content}


def _part_text(part: Any) -> str | None:
    """Return the text of one part of a turn; None if the part is not text."""
    if not isinstance(part, Mapping) or part.get("type", "text") != "text":
        return None
    text = part.get("text", part.get("value"))
    return text if isinstance(text, str) else None


def _conversation(turns: list[Turn]) -> Draft:
    """Split a conversation: the last turn is the completion if it is the assistant's."""
    if not turns or turns[-1]["role"] != "assistant":
        return Draft(turns, [])
    return Draft(turns[:-1], [turns[-1]["content"]])


def _conversation_pair(chosen: list[Turn], rejected: list[Turn]) -> Draft:
    if not chosen or not rejected or chosen[-1]["role"] != "assistant" or rejected[-1]["role"] != "assistant":
        raise Broken("chosen, rejected", "a conversation does not end with the assistant", "an assistant turn last")
    _check_same_prompt(chosen[:-1], rejected[:-1])
    return Draft(chosen[:-1], [chosen[-1]["content"], rejected[-1]["content"]])


def _check_same_prompt(chosen: list[Turn], rejected: list[Turn]) -> None:
    if chosen != rejected:
        reason = "the two conversations differ before the last turn"
        raise Broken("chosen, rejected", reason, "one prompt, two completions")


def _transcript(fields: Fields, name: str) -> Draft:
    parsed = parse_transcript(parse_text(fields, (name,)))
    if isinstance(parsed, str):
        raise Broken(name, parsed, "\\n\\nHuman: …\\n\\nAssistant: …")
    return Draft(parsed.prompt, [parsed.completion], parsed.notes)


def _completion(fields: Fields, *names: str) -> str:
    """Return a completion that is written as text, as one turn, or as a list of one turn."""
    name = next((name for name in names if name in fields), names[0])
    value = fields.get(name)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        return parse_text(fields, (name,))
    turns = parse_turns({name: value}, name)
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise Broken(name, "the field is not one assistant turn", "a completion")
    return turns[0]["content"]


def _system_turns(fields: Fields) -> list[Turn]:
    system = fields.get("system") or fields.get("system_prompt")
    if system is None or system == "":
        return []
    if not isinstance(system, str):
        raise Broken("system", f"the field is {_type_name(system)}", "text")
    return [{"role": "system", "content": system}]


def _history(fields: Fields) -> list[Turn]:
    """Return earlier turns, which Alpaca's `history` lists as [[question, answer], …]."""
    history = fields.get("history")
    if history is None:
        return []
    if not isinstance(history, list):
        raise Broken("history", f"the field is {_type_name(history)}", "[[question, answer], …]")
    turns: list[Turn] = []
    for exchange in history:
        if not isinstance(exchange, list) or len(exchange) != 2 or not all(isinstance(text, str) for text in exchange):
            raise Broken("history", "the field is not a list of exchanges", "[[question, answer], …]")
        turns += [{"role": "user", "content": exchange[0]}, {"role": "assistant", "content": exchange[1]}]
    return turns


def _type_name(value: Any) -> str:
    return {type(None): "missing", bool: "true or false", str: "text", dict: "an object", list: "a list"}.get(
        type(value), "a number" if isinstance(value, int | float) else f"of type {type(value).__name__}"
    )
