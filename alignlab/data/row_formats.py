"""The formats of public data sets, recognised by the fields that each row holds.

Every format is parsed to a `Draft`: a prompt (turns) and completions, best first. A row without a completion is a
prompt, with one a demonstration, with two a pair, with more a ranking; a completion without a prompt is plain text.
A row has the first format of `FORMATS` whose required fields it holds. Formats that need least (`CATCH_ALL`) do not
take a row that another format of its file would take if it were complete.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from alignlab.data import message_trees
from alignlab.data import preference_formats as preferences
from alignlab.data.hh_rlhf import parse_transcript
from alignlab.data.prompts import COMPLETIONS, PROMPTS, parse_completion, parse_prompt
from alignlab.data.row_fields import Broken as Broken
from alignlab.data.row_fields import Draft as Draft
from alignlab.data.row_fields import RowFields, canonical, fields_of, is_misspelt, parse_text, pick
from alignlab.data.transcripts import transcript_turns
from alignlab.data.turns import conversation

Fields = Mapping[str, Any]
CONVERSATIONS = ("conversations", "conversation")
MESSAGES = ("messages", "contents")
SUMMARISE = "Summarize the following conversation.\n\n{dialogue}"
CATCH_ALL = ("text", "prompts")


class RowFormat(NamedTuple):
    """A format: its name, its required fields (groups of alternative names), and the parser of a row."""

    name: str
    required: tuple[tuple[str, ...], ...]
    parse: Callable[[Fields], list[Draft]]

    def __str__(self) -> str:
        return f"{self.name} ({', '.join('|'.join(names[:2]) for names in self.required)})"


def detect(rows: Iterable[Fields]) -> RowFormat | None:
    """Return the format of most rows; None if no row has any."""
    counts = Counter(row_format.name for row in rows if (row_format := format_of(fields_of(row))))
    return FORMATS[counts.most_common(1)[0][0]] if counts else None


def format_of(row: RowFields, main: RowFormat | None = None) -> RowFormat | None:
    """Return the format of a row; `main` is the format of most rows of its file.

    Fields that hold something decide; where they leave a catch-all, blank fields count too, and then the fields that
    the row shares with `main`: the row lacks something and is a fault, not a smaller row.
    """
    held = _first_format(frozenset(name for name in row if row.holds(name)))
    if held and held.name not in CATCH_ALL:
        return held
    blank = _first_format(frozenset(name for name in row if row.values_by_name[name] not in (None, [], {})))
    if blank and blank.name not in CATCH_ALL:
        return blank
    if main and main.name not in CATCH_ALL and any(row.holds(name) for names in main.required for name in names):
        return main
    return held or blank or main


@lru_cache(maxsize=4096)
def _first_format(names: frozenset[str]) -> RowFormat | None:
    row = RowFields(dict.fromkeys(names, True))
    return next((known for known in FORMATS.values() if matches(known, row)), None)


def matches(row_format: RowFormat, row: Fields) -> bool:
    """Return whether a row has the required fields."""
    return all(any(name in row for name in names) for names in row_format.required)


def misspelt_field(row: RowFields) -> tuple[str, str] | None:
    """Return the first unread field whose name is one letter away from that of a field of a format, and that name."""
    for name, _ in row.unread():
        if meant := [field for field in similar_names(canonical(name)) if not row.holds(field)]:
            return name, meant[0]
    return None


@lru_cache(maxsize=4096)
def similar_names(name: str) -> tuple[str, ...]:
    """Return the names of formats' fields that are one letter away from a name; none for a name of a field."""
    known = {name for row_format in FORMATS.values() for names in row_format.required for name in names}
    return () if name in known else tuple(sorted(field for field in known if is_misspelt(name, field)))


def messages(fields: Fields) -> list[Draft]:
    """Parse a conversation in OpenAI's or Gemini's format; one that ends with the user is a prompt."""
    return [conversation(fields, pick(fields, MESSAGES) or "messages")]


def sharegpt(fields: Fields) -> list[Draft]:
    """Parse a conversation in ShareGPT's or xtuner's format."""
    return [conversation(fields, next(name for name in CONVERSATIONS if name in fields))]


def self_instruct(fields: Fields) -> list[Draft]:
    """Parse an instruction with several instances of input and output; each instance is a row."""
    instances = fields["instances"]
    if not isinstance(instances, list) or not instances or not all(isinstance(item, Mapping) for item in instances):
        raise Broken("instances", "the field is not a list of objects", "a list of {input, output}")
    row, instruction = fields_of(fields), fields["instruction"]
    drafts = []
    for item in instances:
        part = row.part("instances", {"instruction": instruction, **item})
        drafts += alpaca(part)
    return drafts


def dialogsum(fields: Fields) -> list[Draft]:
    """Parse a dialogue and its summary (DialogSum)."""
    request = SUMMARISE.format(dialogue=parse_text(fields, ("dialogue",)))
    return [Draft([{"role": "user", "content": request}], [parse_text(fields, ("summary",))])]


def alpaca(fields: Fields) -> list[Draft]:
    """Parse an instruction, its optional input, system prompt and history, and an output (Alpaca, Dolly)."""
    return [Draft(parse_prompt(fields), [parse_completion(fields, *COMPLETIONS)])]


def transcript(fields: Fields) -> list[Draft]:
    """Parse one conversation in HH-RLHF's format."""
    parsed = parse_transcript(parse_text(fields, ("transcript",)))
    if isinstance(parsed, str):
        raise Broken("transcript", parsed, "\\n\\nHuman: …\\n\\nAssistant: …")
    return [Draft(parsed.prompt, [parsed.completion], parsed.notes)]


def plain_text(fields: Fields) -> list[Draft]:
    """Parse text without a prompt; text that begins as a transcript is a conversation."""
    text = parse_text(fields, ("text",))
    turns = transcript_turns(text)
    if turns and turns[-1]["role"] == "assistant" and turns[-1]["content"]:
        return [Draft(turns[:-1], [turns[-1]["content"]])]
    return [Draft([], [text])]


def prompt_only(fields: Fields) -> list[Draft]:
    """Parse a prompt without a completion."""
    return [Draft(parse_prompt(fields), [])]


def _known(*formats: RowFormat) -> dict[str, RowFormat]:
    return {known.name: known for known in formats}


CHOSEN, REJECTED = preferences.CHOSEN, preferences.REJECTED
BEFORE = preferences.BEFORE
FORMATS = _known(
    RowFormat("messages_preference", (("chosen_messages",), ("rejected_messages",)), preferences.messages_preference),
    RowFormat("preference", (PROMPTS, CHOSEN, REJECTED), preferences.preference),
    RowFormat("sharegpt_preference", ((*CONVERSATIONS, "messages"), CHOSEN, REJECTED), preferences.sharegpt_preference),
    RowFormat("preference_context", (("context", "history"), CHOSEN, REJECTED), preferences.preference),
    RowFormat("hh_rlhf", (("chosen",), ("rejected",)), preferences.hh_rlhf),
    RowFormat("rejected_response", (BEFORE, COMPLETIONS, preferences.REJECTED_BESIDE), preferences.rejected_response),
    RowFormat("messages_rejected", (("messages",), preferences.REJECTED_BESIDE), preferences.messages_rejected),
    RowFormat(
        "compared",
        (preferences.FIRST_ANSWERS, preferences.SECOND_ANSWERS, preferences.VERDICTS),
        preferences.compared,
    ),
    RowFormat("ranking", (BEFORE, preferences.RANKINGS), preferences.ranking),
    RowFormat("summaries", (("info",), ("summaries",)), preferences.summaries),
    RowFormat("eli5", (("title",), ("selftext",), ("answers",)), preferences.eli5),
    RowFormat("message_tree", (("message_tree_id", "tree_state"), ("prompt",)), message_trees.parse_tree),
    RowFormat("messages", (MESSAGES,), messages),
    RowFormat("sharegpt", (CONVERSATIONS,), sharegpt),
    RowFormat("self_instruct", (("instruction",), ("instances",)), self_instruct),
    RowFormat("dialogsum", (("dialogue",), ("summary",)), dialogsum),
    RowFormat("alpaca", (("instruction",), COMPLETIONS), alpaca),
    RowFormat("prompt_completion", (PROMPTS, COMPLETIONS), alpaca),
    RowFormat("transcript", (("transcript",),), transcript),
    RowFormat("text", (("text",),), plain_text),
    RowFormat("prompts", (("prompt", "question", "instruction", "query", "problem"),), prompt_only),
)
