"""Fields that no format reads: each is counted, and a row is refused if one looks like an answer or a context.

A field's words count as read if they stand in the row's prompt or completions, as `messages` beside `chosen` does. A
field that is not read and holds many words, or several words under the name of an answer or a context, makes the row a
reject until `dataset.ignore` names the field. Fields of images, sounds and films refuse a row in the same way.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from alignlab.data.media import NOUNS, PLACEHOLDER, find_placeholder, media_files
from alignlab.data.row_fields import Broken, Draft, RowFields, canonical, decode, is_misspelt

ANSWER_NAMES = {
    "answer", "answers", "response", "responses", "completion", "completions", "output", "outputs", "chosen",
    "rejected", "solution", "solutions", "reply", "replies", "target", "targets", "reasoning", "thinking", "thought",
    "cot", "rationale", "correct", "incorrect", "summary", "summaries", "generation", "generations", "prediction",
    "option", "options", "choices", "candidate", "candidates", "ending", "endings", "continuation", "gold", "label",
    "corrected", "correction", "revised", "revision", "edit", "edited", "improved", "reflection", "step", "steps",
}  # fmt: skip
CONTEXT_NAMES = {
    "prompt", "instruction", "question", "query", "input", "inputs", "context", "contexts", "history", "system",
    "conversation", "conversations", "messages", "message", "dialogue", "dialog", "document", "documents", "passage",
    "passages", "article", "story", "text", "content", "body", "tools", "tool", "functions", "function", "examples",
}  # fmt: skip
METADATA_NAMES = {
    "id", "ids", "uuid", "source", "sources", "category", "categories", "topic", "topics", "tag", "tags", "license",
    "url", "urls", "link", "path", "file", "filename", "date", "time", "timestamp", "author", "model", "models", "name",
    "hash", "language", "lang", "meta", "metadata", "version", "split", "type", "kind", "subset", "dataset", "origin",
    "citation", "user", "users", "annotator", "key", "index", "idx", "md5", "sha256", "template", "task",
}  # fmt: skip
EXPLANATIONS = {
    "preference",
    "preferences",
    "annotation",
    "annotations",
    "statement",
    "elaboration",
    "explanation",
    "justification",
    "comment",
    "comments",
    "feedback",
    "critique",
}
OPTIONS = {"option", "options", "choices"}
LETTERS = {"a", "b", "c", "d", "e"}  # columns of a multiple choice
SEVERAL_WORDS = 3
MANY_WORDS = 30
GLUE_WORDS = 4  # per turn, that a template may add to the row's own texts
TEMPLATE_WORDS = 60  # that a template may add to all of the row's own texts, as Alpaca's does
FEWEST_OWN_WORDS, SHORTEST_OWN_TEXT = 5, 8  # words and characters, below which a text stands in another by chance
MOST_NAMES = 500
OTHERS = "other fields"
WORD = re.compile(r"\w+")
BETWEEN_PARTS = re.compile(r"[^a-z0-9]+")


@lru_cache
def ignored_names(names: tuple[str, ...]) -> frozenset[str]:
    """Return the names of `dataset.ignore` as fields are looked up; `images` stands for all fields of images."""
    written = {canonical(name) for name in names}
    return frozenset(written | {kind for kind in NOUNS if written & {kind, kind[:-1]}})


def refuse_media(fields: RowFields, drafts: list[Draft]) -> list[Draft]:
    """Raise a fault if a row holds images, sounds or films; remove the placeholders of ignored ones."""
    for name, kind in fields.names.media:
        if fields.holds(name):
            raise Broken(name, f"the row holds {kind}, and models here read text", "text", f"{LEAVE_OUT}[{kind}]")
    for name, value in fields.unread():
        if not set(canonical(name).split("_")) & METADATA_NAMES and (kind := media_files(value)):
            raise Broken(name, f"the field names {kind}, and models here read text", "text", f"{LEAVE_OUT}[{name}]")
    if fields.ignored & set(NOUNS):
        return [map_texts(draft) for draft in drafts]
    for draft in drafts:
        for text in texts_of(draft):
            if match := find_placeholder(text):
                reason = f"a text holds {match[0][:30]}, the place of an image, a sound or a film"
                raise Broken("", reason, "text", f"{LEAVE_OUT}[images] to drop the placeholders")
    return drafts


LEAVE_OUT = "leave it out with dataset.ignore="


def map_texts(draft: Draft) -> Draft:
    """Return a draft without placeholders."""

    def without(text: str) -> str:
        return PLACEHOLDER.sub("", text).strip() if find_placeholder(text) else text

    prompt = [{**turn, "content": without(turn["content"])} for turn in draft.prompt]
    return draft._replace(prompt=prompt, completions=[without(text) for text in draft.completions])  # type: ignore[arg-type]


def texts_of(draft: Draft) -> list[str]:
    """Return every text of a draft."""
    return [*(turn["content"] for turn in draft.prompt), *draft.completions]


def unread_fields(fields: RowFields, drafts: list[Draft], catch_all: bool = False) -> list[str]:
    """Return the names of the unread fields; raise a fault for one that looks like an answer or a context.

    In a row of a format that takes what no other does (`catch_all`), one word under the name of an answer is enough.
    """
    unread = list(fields.unread())
    if not unread:
        return []
    names: dict[str, None] = {}
    texts = sorted({text.strip() for draft in drafts for text in texts_of(draft)}, key=len, reverse=True)
    compared = any(len(draft.completions) > 1 for draft in drafts)
    for name, value in unread:
        counts = [count_missing(leaf, texts) for leaf in strings_in(value)]
        if counts and not any(counts):
            continue
        least = least_words(name, compared, catch_all)
        missing = sum(counts) if least <= SEVERAL_WORDS else max(counts, default=0)
        if counts and missing >= least:
            reason = f"no format reads this field, and its text ({missing} words) looks like an answer or a context"
            remedy = f"{LEAVE_OUT}[{name}], or rename the fields (docs/data.md lists the formats)"
            raise Broken(name, reason, "a field that is read, or one that dataset.ignore names", remedy)
        names[name] = None
    return list(names)


@lru_cache(maxsize=4096)
def least_words(name: str, compared: bool, catch_all: bool) -> float:
    """Return the number of words from which an unread field of this name refuses a row."""
    last = canonical(name.rpartition(".")[2])
    parts = set(BETWEEN_PARTS.split(last))
    if last in LETTERS or parts & OPTIONS or (catch_all and parts & ANSWER_NAMES and not parts & METADATA_NAMES):
        return 1
    if parts & METADATA_NAMES and not parts & ANSWER_NAMES:
        return float("inf")
    meant = ANSWER_NAMES | CONTEXT_NAMES
    if parts & meant or any(is_misspelt(part, known) for part in parts for known in meant):
        return SEVERAL_WORDS
    return float("inf") if compared and parts & EXPLANATIONS else MANY_WORDS


def strings_in(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield the texts inside a value, without the keys of objects and the roles of turns."""
    decoded = decode(value)
    if isinstance(decoded, str):
        yield decoded
    elif depth < 20 and isinstance(decoded, Mapping):
        for name, inner in decoded.items():
            if name not in ("role", "from", "type") or not isinstance(inner, str) or len(inner.split()) > 1:
                yield from strings_in(inner, depth + 1)
    elif depth < 20 and isinstance(decoded, list | tuple):
        for inner in decoded:
            yield from strings_in(inner, depth + 1)


def count_missing(text: str, texts: list[str]) -> int:
    """Return the number of words of a text that the row's texts do not hold, less a template's few words."""
    rest = text.strip()
    if not rest or any(rest in own for own in texts):
        return 0
    replaced, own_words = 0, sum(len(WORD.findall(own)) for own in texts)
    rendered = own_words >= FEWEST_OWN_WORDS and all(own in rest for own in texts)
    for own in texts:
        if len(own) >= SHORTEST_OWN_TEXT and own in rest:
            rest, replaced = rest.replace(own, " "), replaced + 1
    words = len(WORD.findall(rest))
    return 0 if replaced and words <= (TEMPLATE_WORDS if rendered else GLUE_WORDS * replaced) else words
