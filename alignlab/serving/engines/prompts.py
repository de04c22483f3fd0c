"""Encode prompts for an engine: long ones in a thread of their own, so that they delay no other request.

A short one is encoded at once. It takes less time than the change to another thread and back, for which a request waits
while a decoding step runs.
"""

import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from alignlab.chat import encode_prompt
from alignlab.errors import Failure
from alignlab.models.truncation import context_length
from alignlab.serving.engines.protocol import Generation
from alignlab.serving.problems import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHORT = 2000  # characters


class PromptEncoder:
    """Returns the token ids of prompts that fit the model's context."""

    def __init__(self, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        self.context = context_length(model.config)
        self.tokenizer = copy.deepcopy(tokenizer)  # a tokenizer is not safe in two threads
        self.thread_tokenizer = copy.deepcopy(tokenizer)
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="encode")

    async def encode(self, generation: Generation) -> list[int]:
        """Return the token ids of a prompt; raises a `Problem` where the template refuses it or it is too long."""
        loop, turns = asyncio.get_running_loop(), generation.turns
        try:
            if sum(len(turn["content"]) for turn in turns) <= SHORT:
                ids = encode_prompt(self.tokenizer, turns)
            else:
                ids = await loop.run_in_executor(self.thread, encode_prompt, self.thread_tokenizer, turns)
        except Failure as error:  # its remedy is for whoever runs the server
            raise Problem(
                422, "invalid_request", f"messages: {error.faults[0].where}: {error.faults[0].what}"
            ) from error
        if self.context is not None and len(ids) + generation.max_tokens > self.context:
            what = f"{len(ids)} tokens of prompt and {generation.max_tokens} new ones exceed the context"
            raise Problem(422, "context_length_exceeded", f"messages: {what} of {self.context}")
        return ids

    def close(self) -> None:
        """Stop the thread."""
        self.thread.shutdown()
