"""The text of a growing completion: what may be sent now, and whether a stop sequence ended it."""

from collections.abc import Callable, Sequence

from alignlab.models.sampling import Completion


class GrowingText:
    """Holds back what may be the beginning of a stop sequence and a part of a character.

    All parts of `new` and `rest`, joined, are the completion's text, cut before the first stop sequence.
    """

    def __init__(self, complete: Callable[[list[int]], Completion], stop: Sequence[str]) -> None:
        self.complete, self.stop = complete, stop
        self.held = max((len(text) for text in stop), default=1) - 1
        self.text, self.sent = "", 0
        self.finished = self.stopped = False

    def add(self, tokens: list[int]) -> None:
        """Read the tokens so far."""
        completion = self.complete(tokens)
        self.text, self.finished = completion.text, completion.finished
        ends = [place for text in self.stop if (place := self.text.find(text)) >= 0]
        if ends:
            self.text, self.stopped = self.text[: min(ends)], True

    def new(self) -> str:
        """Return the text that has become certain."""
        if self.text.endswith("\ufffd"):
            return ""
        return self.cut(len(self.text) - self.held)

    def rest(self) -> str:
        """Return all text that was not sent yet."""
        return self.cut(len(self.text))

    def cut(self, end: int) -> str:
        """Return the text up to a place, and mark it as sent."""
        new = self.text[self.sent : max(end, self.sent)]
        self.sent += len(new)
        return new
