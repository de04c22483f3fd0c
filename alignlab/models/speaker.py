"""A model in a conversation: it keeps the turns, and answers the last one token by token."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from alignlab.chat import Turn, encode_prompt
from alignlab.models.sampling import (
    Completion,
    Sampling,
    draw_uniforms,
    neutral,
    sample_batch,
    special_tokens,
    to_completion,
)
from alignlab.models.token_choice import LIKELIEST
from alignlab.models.truncation import context_length, cut_prompt, cut_turns, room_for_prompt

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SMALL_VOCABULARY = 4096  # tokens; a larger vocabulary spells any word
SETTING = "task.max_new_tokens"


class Prompt(NamedTuple):
    """The turns that a model answers, and the sentence that says what was left out of the conversation, if anything."""

    turns: list[Turn]
    note: str


class Reply(NamedTuple):
    """A model's answer; `stopped` says that the user has stopped it."""

    completion: Completion
    stopped: bool


class Speaker:
    """A model with its own view of the conversation: its turns hold its own answers."""

    def __init__(
        self,
        name: str,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        sampling: Sampling,
        seed: int,
    ) -> None:
        self.name, self.model, self.tokenizer, self.seed = name, model, tokenizer, seed
        self.sampling = sampling._replace(temperature=max(sampling.temperature, LIKELIEST))
        self.room = room_for_prompt(model, sampling.max_new_tokens, SETTING)
        self.turns: list[Turn] = []

    def prompt(self) -> Prompt:
        """Return the conversation without the oldest turns that do not fit into the model's context."""
        kept = cut_turns(self.tokenizer, self.turns, self.room)
        return Prompt(kept, self.describe_cut(kept))

    def describe_cut(self, kept: list[Turn]) -> str:
        """Return the sentence that says what was left out; empty where nothing was."""
        left_out = len(self.turns) - len(kept)
        context = context_length(self.model.config)
        if left_out:
            return f"the oldest {left_out} turns no longer fit into the context of {context} tokens and are left out"
        if kept != self.turns:
            return f"the beginning of your message is left out: it does not fit into the context of {context} tokens"
        return ""

    def answer(self, turns: list[Turn], draw: int, write: Callable[[str], None]) -> Reply:
        """Answer the turns and call `write` with each new part of the text; the seed and `draw` decide randomness.

        Ctrl-C stops the answer; the reply holds the text so far.
        """
        ids = cut_prompt(encode_prompt(self.tokenizer, turns), self.room)
        limit = self.sampling.max_new_tokens
        uniforms, limits = draw_uniforms(self.seed, [draw], limit), np.full(1, limit)
        stream = TextStream(self.tokenizer, special_tokens(self.model, self.tokenizer)[1], write)
        try:
            with neutral(self.model):
                sample_batch(self.model, self.tokenizer, [ids], uniforms, limits, self.sampling, watch=stream.add)
        except KeyboardInterrupt:
            return Reply(stream.finish(), stopped=True)
        return Reply(stream.finish(), stopped=False)

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that a small vocabulary lacks: it spells them, or reads them as unknown."""
        if len(self.tokenizer) > SMALL_VOCABULARY:
            return []
        return list(dict.fromkeys(word for word in re.findall(r"\w+", text) if not self.knows(word)))

    def knows(self, word: str) -> bool:
        """Return whether a word has tokens that are more than its letters."""
        ids = self.tokenizer(word, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        tokens = self.tokenizer.convert_ids_to_tokens(ids)
        spelled = len(word) > 1 and all(len(token.lstrip("▁")) <= 1 for token in tokens)
        return not spelled and self.tokenizer.unk_token not in tokens


class TextStream:
    """The text of a growing completion; all parts that it writes, joined, are the completion's text."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", ends: set[int], write: Callable[[str], None]) -> None:
        self.tokenizer, self.ends, self.write = tokenizer, ends, write
        self.ids: list[int] = []
        self.written = ""

    def finish(self) -> Completion:
        """Write what was held back, and return the completion."""
        self.show(self.completion.text)
        return self.completion

    @property
    def completion(self) -> Completion:
        """Return the completion so far."""
        return to_completion(self.tokenizer, self.ids, self.ends)

    def add(self, picked: "torch.Tensor") -> None:
        """Add the next token, [1], and write the new text, unless the token holds only a part of a character.

        `Completion.text` has no white space at its ends, so white space waits for the text after it.
        """
        self.ids.append(int(picked[0]))
        text = self.completion.text
        if not text.endswith("\ufffd"):
            self.show(text)

    def show(self, text: str) -> None:
        """Write what a text adds to the written one."""
        if text.startswith(self.written) and text != self.written:
            new, self.written = text[len(self.written) :], text  # set first: Ctrl-C may interrupt the writing
            self.write(new)
