"""What an engine is: it continues conversations, and streams the text."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from alignlab.chat import Turn


class Generation(NamedTuple):
    """A conversation to continue, and how; the seed decides all randomness."""

    turns: Sequence[Turn]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop: Sequence[str] = ()
    streams: bool = False  # whether parts of the text are wanted before its end


class Part(NamedTuple):
    """A part of a completion; the last one has a finish reason (stop, length or timeout) and the counts of tokens."""

    text: str
    finish_reason: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Load(NamedTuple):
    """How busy an engine is: requests that wait, and requests whose completions grow."""

    waiting: int
    active: int


class Engine(Protocol):
    """Continues conversations with one model."""

    name: str
    version: str  # the fingerprint of the weights, or the server and the model's name there

    def complete(self, generation: Generation) -> AsyncIterator[Part]:
        """Yield the parts of a completion; closing the iterator ends it. Raises a `Problem`."""
        ...

    def load(self) -> Load:
        """Return how busy the engine is."""
        ...

    def close(self) -> None:
        """End all completions, and free what the engine holds."""
        ...
