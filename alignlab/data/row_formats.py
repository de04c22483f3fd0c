"""What a row of a file means: the shapes that public data comes in, told apart by their fields.

Every shape becomes the same `Draft`: a prompt (turns) and completions, best first. No completion is a prompt, one a
demonstration, two a pair, more a ranking; a completion without a prompt is plain text. The first shape of `SHAPES`
whose fields are there is taken, for each file by what most of its first rows look like.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from alignlab.chat import Turn
from alignlab.data.hh_rlhf import join, parse

Fields = Mapping[str, Any]
Role = Literal["system", "user", "assistant"]
ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant", "chatgpt": "assistant",
}  # fmt: skip
PROMPTS = ("prompt", "question", "query", "instruction", "input")
ANSWERS = ("completion", "response", "output", "answer")
CONTEXTS = ("input", "context")
SUMMARISE = "Summarize the following conversation.\n\n{dialogue}"


class Draft(NamedTuple):
    """What a row says, before it is checked; `notes` are oddities that were met and kept."""

    prompt: list[Turn]
    completions: list[str]
    notes: tuple[str, ...] = ()


class Broken(Exception):
    """A row that is not what its shape asks for: the field, what is wrong, what was expected."""

    def __init__(self, field: str, reason: str, expected: str) -> None:
        self.field, self.reason, self.expected = field, reason, expected
        super().__init__(f"{field}: {reason}; expected {expected}")


class Shape(NamedTuple):
    """A shape: its name, the fields that it needs (one name of each group), and how a row is read."""

    name: str
    needs: tuple[tuple[str, ...], ...]
    read: Callable[[Fields], list[Draft]]

    def fits(self, fields: Fields) -> bool:
        """Whether the fields that the shape needs are there."""
        return all(any(name in fields for name in names) for names in self.needs)

    def __str__(self) -> str:
        return f"{self.name} ({', '.join('|'.join(names) for names in self.needs)})"


def recognise(rows: Iterable[Fields]) -> Shape | None:
    """The shape that most rows fit, or none."""
    found = Counter(next((shape.name for shape in SHAPES.values() if shape.fits(row)), "") for row in rows)
    found.pop("", None)
    return SHAPES[found.most_common(1)[0][0]] if found else None


def messages_preference(fields: Fields) -> list[Draft]:
    """Two whole conversations that differ in their last turn (LLaMA-Factory)."""
    return [_pair_of_talks(turns(fields, "chosen_messages"), turns(fields, "rejected_messages"))]


def sharegpt_preference(fields: Fields) -> list[Draft]:
    """A conversation, and two turns of which one follows (LLaMA-Factory's ShareGPT)."""
    prompt = _system(fields) + turns(fields, "conversations")
    return [Draft(prompt, [_answer(fields, "chosen"), _answer(fields, "rejected")])]


def preference(fields: Fields) -> list[Draft]:
    """A prompt and two answers, as text or as turns; turns may repeat the prompt (UltraFeedback)."""
    if all(isinstance(fields.get(side), list) for side in ("chosen", "rejected")):
        chosen, rejected = turns(fields, "chosen"), turns(fields, "rejected")
        if len(chosen) > 1:
            return [_pair_of_talks(chosen, rejected)]
    return [Draft(asked(fields), [_answer(fields, "chosen"), _answer(fields, "rejected")])]


def hh_rlhf(fields: Fields) -> list[Draft]:
    """Two whole conversations, as HH-RLHF's transcripts or as turns."""
    if isinstance(fields.get("chosen"), list):
        return [_pair_of_talks(turns(fields, "chosen"), turns(fields, "rejected"))]
    chosen, rejected = _transcript(fields, "chosen"), _transcript(fields, "rejected")
    if chosen.prompt != rejected.prompt:
        raise Broken("chosen, rejected", "the two conversations differ before the last turn", "one prompt, two answers")
    notes = tuple(sorted({*chosen.notes, *rejected.notes}))
    return [Draft(chosen.prompt, [*chosen.completions, *rejected.completions], notes)]


def ranking(fields: Fields) -> list[Draft]:
    """A prompt and several answers, best first."""
    field = next(name for name in ("completions", "responses", "answers", "ranking") if name in fields)
    given = fields[field]
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise Broken(field, "is no list of texts", "a list of answers, best first")
    if len(given) < 2:
        raise Broken(field, f"holds {len(given)} answers", "two or more, best first")
    return [Draft(asked(fields), list(given))]


def messages(fields: Fields) -> list[Draft]:
    """A conversation as OpenAI writes it; one that ends with the user is a prompt."""
    return [_talk(turns(fields, "messages"))]


def sharegpt(fields: Fields) -> list[Draft]:
    """A conversation as ShareGPT writes it."""
    return [_talk(_system(fields) + turns(fields, "conversations"))]


def self_instruct(fields: Fields) -> list[Draft]:
    """An instruction with several instances of input and output, each of which becomes a row."""
    instances = fields["instances"]
    if not isinstance(instances, list) or not instances or not all(isinstance(one, Mapping) for one in instances):
        raise Broken("instances", "is no list of objects", "a list of {input, output}")
    return [draft for one in instances for draft in alpaca({"instruction": fields["instruction"], **one})]


def dialogsum(fields: Fields) -> list[Draft]:
    """A dialogue and its summary (DialogSum)."""
    asks = SUMMARISE.format(dialogue=text(fields, ("dialogue",)))
    return [Draft([{"role": "user", "content": asks}], [text(fields, ("summary",))])]


def alpaca(fields: Fields) -> list[Draft]:
    """An instruction, perhaps with input, system prompt and history, and an output (Alpaca, Dolly)."""
    return [Draft(asked(fields), [_answer(fields, *ANSWERS)])]


def transcript(fields: Fields) -> list[Draft]:
    """One conversation in HH-RLHF's format."""
    return [_transcript(fields, "transcript")]


def plain(fields: Fields) -> list[Draft]:
    """Text without a prompt."""
    return [Draft([], [text(fields, ("text",))])]


def prompt_alone(fields: Fields) -> list[Draft]:
    """A prompt without an answer."""
    return [Draft(asked(fields), [])]


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("messages_preference", (("chosen_messages",), ("rejected_messages",)), messages_preference),
        Shape("sharegpt_preference", (("conversations",), ("chosen",), ("rejected",)), sharegpt_preference),
        Shape("preference", (PROMPTS, ("chosen",), ("rejected",)), preference),
        Shape("hh_rlhf", (("chosen",), ("rejected",)), hh_rlhf),
        Shape("ranking", (PROMPTS, ("completions", "responses", "answers", "ranking")), ranking),
        Shape("messages", (("messages",),), messages),
        Shape("sharegpt", (("conversations",),), sharegpt),
        Shape("self_instruct", (("instruction",), ("instances",)), self_instruct),
        Shape("dialogsum", (("dialogue",), ("summary",)), dialogsum),
        Shape("alpaca", (("instruction",), ANSWERS), alpaca),
        Shape("prompt_completion", (PROMPTS, ANSWERS), alpaca),
        Shape("transcript", (("transcript",),), transcript),
        Shape("text", (("text",),), plain),
        Shape("prompts", (("prompt", "question", "instruction"),), prompt_alone),
    )
}


def text(fields: Fields, names: Sequence[str]) -> str:
    """The first field of these names that is there; it has to be text. A missing value is empty text."""
    name = next((name for name in names if name in fields), None)
    if name is None:
        raise Broken(names[0], "the field is missing", "text")
    value = fields[name]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Broken(name, f"the field is {_kind(value)}", "text")
    return value


def turns(fields: Fields, name: str) -> list[Turn]:
    """A list of turns, in OpenAI's words or in ShareGPT's; turns of one speaker in a row are joined."""
    given = fields.get(name)
    if not isinstance(given, list):
        raise Broken(name, f"the field is {_kind(given)}", "a list of turns")
    return join([_turn(one, name) for one in given])


def asked(fields: Fields) -> list[Turn]:
    """The prompt: turns as they are, or text with its system prompt, history and context."""
    name = next((name for name in PROMPTS if name in fields), PROMPTS[0])
    if isinstance(fields.get(name), list):
        return turns(fields, name)
    context = next((fields[other] for other in CONTEXTS if other != name and fields.get(other)), "")
    if not isinstance(context, str):
        raise Broken("input", f"the field is {_kind(context)}", "text")
    whole = text(fields, (name,)) + (f"\n\n{context}" if context.strip() else "")
    return [*_system(fields), *_history(fields), {"role": "user", "content": whole}]


def _turn(one: Any, field: str) -> Turn:
    if not isinstance(one, Mapping):
        raise Broken(field, f"a turn is {_kind(one)}", "{role, content} or {from, value}")
    said, who = one.get("content", one.get("value")), one.get("role", one.get("from"))
    if not isinstance(who, str) or who.lower() not in ROLES:
        raise Broken(field, f"the speaker {str(who)[:40]!r} is unknown", "system, user (human) or assistant (gpt)")
    if isinstance(said, list):
        said = "".join(map(_part, said)) if all(_part(part) is not None for part in said) else None
    if not isinstance(said, str):
        raise Broken(field, f"what a turn says is {_kind(said)}", "text")
    return {"role": ROLES[who.lower()], "content": said}


def _part(part: Any) -> Any:
    """The text of one part of a turn; None where it is no text."""
    if not isinstance(part, Mapping) or part.get("type", "text") != "text":
        return None
    found = part.get("text", part.get("value"))
    return found if isinstance(found, str) else None


def _talk(said: list[Turn]) -> Draft:
    """A conversation: the last turn is the completion where the assistant speaks it."""
    if not said or said[-1]["role"] != "assistant":
        return Draft(said, [])
    return Draft(said[:-1], [said[-1]["content"]])


def _pair_of_talks(chosen: list[Turn], rejected: list[Turn]) -> Draft:
    if not chosen or not rejected or chosen[-1]["role"] != "assistant" or rejected[-1]["role"] != "assistant":
        raise Broken("chosen, rejected", "a conversation does not end with the assistant", "an answer at the end")
    if chosen[:-1] != rejected[:-1]:
        raise Broken("chosen, rejected", "the two conversations differ before the last turn", "one prompt, two answers")
    return Draft(chosen[:-1], [chosen[-1]["content"], rejected[-1]["content"]])


def _transcript(fields: Fields, name: str) -> Draft:
    found = parse(text(fields, (name,)))
    if isinstance(found, str):
        raise Broken(name, found, "\\n\\nHuman: …\\n\\nAssistant: …")
    return Draft(found.prompt, [found.answer], found.notes)


def _answer(fields: Fields, *names: str) -> str:
    """An answer as text, as one turn, or as a list of one turn."""
    name = next((name for name in names if name in fields), names[0])
    given = fields.get(name)
    if isinstance(given, Mapping):
        given = [given]
    if not isinstance(given, list):
        return text(fields, (name,))
    said = turns({name: given}, name)
    if len(said) != 1 or said[0]["role"] != "assistant":
        raise Broken(name, "is not one turn of the assistant", "an answer")
    return said[0]["content"]


def _system(fields: Fields) -> list[Turn]:
    said = fields.get("system") or fields.get("system_prompt")
    if said is None or said == "":
        return []
    if not isinstance(said, str):
        raise Broken("system", f"the field is {_kind(said)}", "text")
    return [{"role": "system", "content": said}]


def _history(fields: Fields) -> list[Turn]:
    """Earlier exchanges, as Alpaca's `history` lists them: [[question, answer], …]."""
    said: list[Turn] = []
    given = fields.get("history")
    if given is not None and not isinstance(given, list):
        raise Broken("history", f"the field is {_kind(given)}", "[[question, answer], …]")
    for exchange in given or []:
        if not isinstance(exchange, list) or len(exchange) != 2 or not all(isinstance(one, str) for one in exchange):
            raise Broken("history", "is no list of exchanges", "[[question, answer], …]")
        said += [{"role": "user", "content": exchange[0]}, {"role": "assistant", "content": exchange[1]}]
    return said


def _kind(value: Any) -> str:
    return {type(None): "missing", bool: "true or false", str: "text", dict: "an object", list: "a list"}.get(
        type(value), "a number" if isinstance(value, int | float) else f"of type {type(value).__name__}"
    )
