"""A chat model behind a server of OpenAI's protocol that grades single completions.

The grade is a whole number from 1 to `best` and becomes a reward between 0 and 1. Completions are graded one by one,
several at a time. The first one without a grade after all retries ends the batch with an error.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import nan
from typing import Any

from alignlab.chat import Turn
from alignlab.config.reward import JudgeReward
from alignlab.errors import Explained
from alignlab.models.chat_client import ChatClient, NoAnswer, UnusableAnswer
from alignlab.rewards.protocol import Context, Scored


class ChatJudge:
    """A chat model that grades single completions."""

    score_range = (0.0, 1.0)

    def __init__(self, name: str, settings: JudgeReward) -> None:
        self.name, self.settings = name, settings
        self.client = ChatClient(settings, f"reward {name}")

    def score(self, prompts: Sequence[Sequence[Turn]], completions: Sequence[str], finished: Sequence[bool]) -> Scored:
        """Grade each completion; the model is told which were cut off."""
        self.client.stop.clear()
        total: list[float] = []
        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            grades = [pool.submit(self.grade, *row) for row in zip(prompts, completions, finished, strict=True)]
            try:
                total.extend(grade.result() for grade in grades)
            except (NoAnswer, Explained) as error:
                self.client.stop.set()
                pool.shutdown(cancel_futures=True)
                if isinstance(error, Explained):
                    raise
                errors = {len(total): f"{self.settings.url}: {error}"}
                return Scored([nan] * len(completions), errors=errors)
        return Scored(total)

    def grade(self, prompt: Sequence[Turn], completion: str, finished: bool) -> float:
        """Ask for one grade, and return it as a number between 0 and 1."""
        best = self.settings.best
        reason = {"reason": {"type": "string"}} if self.settings.reasons else {}
        properties = {**reason, "mark": {"type": "integer", "enum": list(range(1, best + 1))}}
        schema = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
        asked = self.client.ask(self.question(prompt, completion, finished), schema, self.read)
        return (asked.value - 1) / max(1, best - 1)

    def question(self, prompt: Sequence[Turn], completion: str, finished: bool) -> list[Turn]:
        """Return the request to grade a completion, as a conversation."""
        talk = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
        end = "" if finished else " (cut off here)"
        reason = '"reason": "…", ' if self.settings.reasons else ""
        request = (
            f"<conversation>\n{talk}\n</conversation>\n\n<answer>\n{completion}{end}\n</answer>\n\n"
            f"{self.settings.question}\n\nAnswer with one JSON object of this form, with a mark from 1 (worst) to "
            f'{self.settings.best} (best):\n{{{reason}"mark": 1}}'
        )
        return [{"role": "system", "content": self.settings.instructions}, {"role": "user", "content": request}]

    def read(self, value: Any) -> int:
        """Return the grade in a model's answer; raises `UnusableAnswer` where there is none."""
        grade = value.get("mark") if isinstance(value, dict) else None
        if isinstance(grade, bool) or not isinstance(grade, int) or not 1 <= grade <= self.settings.best:
            raise UnusableAnswer(f"the mark is no whole number from 1 to {self.settings.best}")
        return grade


def load(settings: JudgeReward, context: Context) -> ChatJudge:
    """Return the judge; the server is first asked when it grades."""
    return ChatJudge(context.name(settings.kind), settings)
