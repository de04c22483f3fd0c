"""A stronger model behind a server that writes critiques and revisions."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from alignlab.chat import Turn
from alignlab.config.judge import Server
from alignlab.models.chat_client import ChatClient, NoAnswer, UnusableAnswer
from alignlab.models.sampling import Completion
from alignlab.runtime import distributed

SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
FORM = "\n\nAnswer with one JSON object of this form: {}"


def writer(settings: Server) -> Callable[[Sequence[Sequence[Turn]]], list[Completion]]:
    """Return a function that lets the server answer conversations, several at once.

    One process asks, and all return its answers. A conversation without an answer gets an unfinished, empty one.
    """

    def write(requests: Sequence[Sequence[Turn]]) -> list[Completion]:
        completions: list[Completion] = []
        if distributed.is_first():
            client = ChatClient(settings, "judge")
            with ThreadPoolExecutor(settings.concurrency) as pool:
                completions = list(pool.map(lambda turns: answer(client, turns), requests))
        return distributed.all_gather(completions)[0]

    return write


def answer(client: ChatClient, turns: Sequence[Turn]) -> Completion:
    """Let a server answer one conversation."""
    *before, last = turns
    form = FORM.format(json.dumps({"text": "…"}, ensure_ascii=False))
    try:
        text = client.ask([*before, {**last, "content": last["content"] + form}], SCHEMA, text_in).value
    except NoAnswer:
        return Completion("", False, ())
    return Completion(text, True, ())


def text_in(value: Any) -> str:
    """Return the text of a reply; raises `UnusableAnswer` where it holds none."""
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise UnusableAnswer("text is missing")
    return text.strip()
