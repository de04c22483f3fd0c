"""A reward that a chat model gives behind a server of OpenAI's protocol: a mark for each answer, and why.

The mark is a whole number from 1 to `best` and becomes a reward between 0 and 1. Answers are marked one by one, several
at a time. A reward has to know every answer: one that gets no mark after all tries stops the run; nothing is made up.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from alignlab.chat import Turn
from alignlab.config.reward import JudgeReward
from alignlab.errors import Explained, failure
from alignlab.models.chat_client import Asker, Nonsense, Unanswered
from alignlab.rewards.protocol import RESUME


class Marker:
    """A judge that marks single answers."""

    def __init__(self, name: str, settings: JudgeReward) -> None:
        self.name, self.settings = name, settings
        self.asker = Asker(settings, f"reward {name}")

    def score(
        self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]
    ) -> list[float]:
        """Mark each completion; one that was cut off is shown as what it is."""
        self.asker.stop.clear()
        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            marks = [pool.submit(self.mark, *one) for one in zip(prompts, completions, finished, strict=True)]
            try:
                return [one.result() for one in marks]
            except Explained:
                self.asker.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def mark(self, prompt: Sequence[Turn], completion: str, finished: bool) -> float:
        """Ask for one mark, as a number between 0 and 1."""
        best = self.settings.best
        reason = {"reason": {"type": "string"}} if self.settings.reasons else {}
        properties = {**reason, "mark": {"type": "integer", "enum": list(range(1, best + 1))}}
        schema = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
        try:
            asked = self.asker.ask(self.question(prompt, completion, finished), schema, self.read)
        except Unanswered as error:
            what = f"{self.settings.url} gave no mark for the text {completion[:120]!r}: {error}"
            raise failure(f"reward {self.name}", what, RESUME) from error
        return (asked.told - 1) / max(1, best - 1)

    def question(self, prompt: Sequence[Turn], completion: str, finished: bool) -> list[Turn]:
        """The request to mark an answer, as a conversation."""
        talk = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
        end = "" if finished else " (cut off here)"
        reason = '"reason": "…", ' if self.settings.reasons else ""
        asked = (
            f"<conversation>\n{talk}\n</conversation>\n\n<answer>\n{completion}{end}\n</answer>\n\n"
            f"{self.settings.question}\n\nAnswer with one JSON object of this form, with a mark from 1 (worst) to "
            f'{self.settings.best} (best):\n{{{reason}"mark": 1}}'
        )
        return [{"role": "system", "content": self.settings.instructions}, {"role": "user", "content": asked}]

    def read(self, value: Any) -> int:
        """The mark in an answer; raises `Nonsense` where there is none."""
        mark = value.get("mark") if isinstance(value, dict) else None
        if isinstance(mark, bool) or not isinstance(mark, int) or not 1 <= mark <= self.settings.best:
            raise Nonsense(f"the mark is no whole number from 1 to {self.settings.best}")
        return mark
