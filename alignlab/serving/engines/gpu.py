"""The engine on a GPU: transformers' continuous batching, held open; all that depends on its API is in this module.

It has one random stream for all requests, so a request's seed has no effect here: answers name the seed that was asked
for, and another request with it gives another text. The embedded engine runs on a GPU, too, and keeps seeds.
"""

import asyncio
from collections.abc import AsyncIterator
from time import monotonic
from typing import TYPE_CHECKING, Any

from alignlab.models.sampling import masked_tokens, special_tokens, to_completion
from alignlab.models.token_choice import LIKELIEST
from alignlab.serving.engines.prompts import PromptEncoder
from alignlab.serving.engines.protocol import Generation, Load, Part
from alignlab.serving.engines.stop_text import GrowingText
from alignlab.serving.problems import Problem, busy
from alignlab.serving.store.records import new_id

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NEUTRAL = 0.99  # a temperature and top_p that differ from 1: transformers creates no processor for 1


class GpuEngine:
    """Serves a model by transformers' continuous-batching manager; `options` are those of its configuration."""

    def __init__(
        self,
        name: str,
        version: str,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        max_batch: int,
        max_queue: int,
        timeout: float,
        **options: Any,
    ) -> None:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        self.name, self.version, self.tokenizer = name, version, tokenizer
        self.most, self.max_batch, self.timeout = max_batch + max_queue, max_batch, timeout
        self.prompts = PromptEncoder(model, tokenizer)
        pad, self.ends = special_tokens(model, tokenizer)
        settings = GenerationConfig(
            do_sample=True,
            temperature=NEUTRAL,
            top_p=NEUTRAL,
            top_k=0,
            pad_token_id=pad,
            eos_token_id=sorted(self.ends),
            suppress_tokens=masked_tokens(tokenizer, self.ends) or None,
        )
        batching = ContinuousBatchingConfig(per_request_processors=True, **options)
        self.manager = model.init_continuous_batching(settings, batching)
        self.manager.start()
        self.requests = 0

    async def complete(self, generation: Generation) -> AsyncIterator[Part]:
        """Yield the parts of a completion; closing the iterator cancels its request."""
        if self.requests >= self.most:
            raise busy(f"{self.most} requests are being answered already")
        ids = await self.prompts.encode(generation)
        outputs: asyncio.Queue[Any] = asyncio.Queue()
        request, deadline = new_id("gpu"), monotonic() + self.timeout
        text = GrowingText(lambda tokens: to_completion(self.tokenizer, tokens, self.ends), generation.stop)
        self.manager.register_result_handler(request, outputs.put_nowait)
        self.requests += 1
        finished = False
        try:
            self.manager.add_request(
                ids,
                request,
                max_new_tokens=generation.max_tokens,
                streaming=True,
                temperature=float(max(generation.temperature, LIKELIEST)),
                top_p=float(generation.top_p),
            )
            while not finished:
                output = await outputs.get()
                if output.error:
                    raise Problem(500, "internal_error", "the engine failed; see the server's log")
                tokens = list(output.generated_tokens)
                text.add(tokens)
                reason = reason_of(output.is_finished(), text, monotonic() > deadline)
                if reason:
                    finished = output.is_finished()
                    yield Part(text.rest(), reason, len(ids), len(tokens))
                    return
                if new := text.new():
                    yield Part(new)
        finally:
            self.requests -= 1
            if not finished:
                self.manager.cancel_request(request)

    def load(self) -> Load:
        """Return how many requests there are beyond a batch, and in it."""
        return Load(max(0, self.requests - self.max_batch), min(self.requests, self.max_batch))

    def close(self) -> None:
        """Stop the manager's thread."""
        self.manager.stop(block=True)
        self.prompts.close()


def reason_of(ended: bool, text: GrowingText, late: bool) -> str | None:
    """Return the reason why a completion ended; None where it did not."""
    if text.stopped or (ended and text.finished):
        return "stop"
    return "length" if ended else "timeout" if late else None
