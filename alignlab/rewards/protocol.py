"""What a reward is: text in, numbers out.

A reward gets conversations as turns, the completions' text, and whether each came to an end by itself; it returns one
number each. It never sees another model's token ids or template, so policy and reward may have any two tokenizers.

Nothing that a reward does wrong reaches the training: `Checked` stops the run where one raises, returns something
that is no finite number, or returns too many or too few, and names the reward and the text in question.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Protocol

from alignlab.chat import Turn
from alignlab.errors import Explained, failure
from alignlab.runtime import distributed

RESUME = "mend it and give the same command again: the run goes on from its last checkpoint"
SHOWN = 120  # characters of a text in a message


class Reward(Protocol):
    """Scores completions. One that learns while it is used has `state_dict` and `load_state_dict` too."""

    @property
    def name(self) -> str:
        """What it is called in messages, curves and tables."""
        ...

    def score(
        self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]
    ) -> list[float]:
        """Give one score a completion, in their order."""
        ...


class Checked:
    """A reward whose scores can be relied on: as many as completions, all of them finite numbers.

    `terms` holds what the last scores were made of, by name, where the reward tells (see `alignlab.rewards.mixture`).
    """

    def __init__(self, reward: Reward) -> None:
        self.reward = reward

    @property
    def name(self) -> str:
        return self.reward.name

    @property
    def terms(self) -> dict[str, list[float]]:
        """What the last scores were made of, [completions] each."""
        return dict(getattr(self.reward, "terms", {}))

    def score(
        self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]
    ) -> list[float]:
        """Score, or raise a `Failure` that names the reward and the offending text.

        Of several processes each scores its share, unless the reward is made of others, which share, or has a memory.
        """
        if hasattr(self.reward, "terms") or hasattr(self.reward, "state_dict"):
            return self.scored(prompts, completions, finished)

        def some(own: list[int]) -> list[float]:
            asked, texts = [prompts[row] for row in own], [completions[row] for row in own]
            return self.scored(asked, texts, [finished[row] for row in own]) if own else []

        return distributed.divided(len(completions), some)

    def scored(
        self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]
    ) -> list[float]:
        """Score in this process."""
        try:
            given = self.reward.score(prompts, completions, finished)
        except Explained:
            raise
        except Exception as error:
            text = self.first_that_raises(prompts, completions, finished)
            what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise self.failed(f"raised {what}", text) from error
        scores = self.counted(given, completions)
        for text, value in zip(completions, scores, strict=True):
            if isinstance(value, bool) or not is_number(value):
                raise self.failed(f"gave {value!r}, which is no finite number,", text)
        return [float(value) for value in scores]

    def counted(self, given: Any, completions: Sequence[str]) -> list[Any]:
        """The scores as a list, if there is one for each completion."""
        try:
            scores = list(given)
        except TypeError:
            raise self.failed(f"gave {type(given).__name__}, which is no list of scores,", *completions[:1]) from None
        if len(scores) != len(completions):
            raise self.failed(f"gave {len(scores)} scores for {len(completions)} completions", *completions[:1])
        return scores

    def first_that_raises(
        self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]
    ) -> str:
        """Find the completion that the reward cannot score by itself; the first one where each can be."""
        for prompt, text, end in zip(prompts, completions, finished, strict=True):
            try:
                self.reward.score([prompt], [text], [end])
            except Exception:
                return text
        return completions[0] if completions else ""

    def failed(self, what: str, *texts: str) -> Exception:
        """Make the failure that stops the run."""
        shown = "".join(f" on the text {text[:SHOWN]!r}{'…' * (len(text) > SHOWN)}" for text in texts[:1])
        return failure(f"reward {self.name}", what + shown, RESUME)

    def state_dict(self) -> dict[str, Any]:
        """What the reward has learned so far (running means); empty for one that does not learn."""
        return dict(self.reward.state_dict()) if hasattr(self.reward, "state_dict") else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` gave."""
        if hasattr(self.reward, "load_state_dict"):
            self.reward.load_state_dict(state)


def is_number(value: Any) -> bool:
    """Whether a score is a finite number, of Python, numpy or torch."""
    try:
        return not isinstance(value, str | bytes) and isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False
