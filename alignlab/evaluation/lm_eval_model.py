"""A subject as a model of lm-evaluation-harness (github.com/EleutherAI/lm-evaluation-harness), for its tasks to ask.

Contexts are raw text. Continuations of one context are the choices of one item, so that they share its computation, and
all replies are kept as those of other items are. Greedy texts may differ from those of lm-eval's own model where that
writes special tokens, which we never sample.
"""

from itertools import groupby
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import LM

from alignlab.errors import failure
from alignlab.evaluation.replies import Item
from alignlab.runtime.files import digest

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from alignlab.evaluation.protocol import Context

LONGEST = 256  # new tokens, where a task names no number
SETTING = "evaluation.tasks"


class SubjectModel(LM):  # type: ignore[misc, unused-ignore]
    """The model of a context."""

    def __init__(self, context: "Context") -> None:
        super().__init__()
        self.context = context

    def loglikelihood(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Return for each context and continuation the log-probability, and whether each token is the likeliest."""
        groups = [[request.args for request in group] for _, group in groupby(requests, lambda one: one.args[0])]
        items = [
            Item(digest("lm_eval", group[0][0]), group[0][0], choices=tuple(text for _, text in group), ends=False)
            for group in groups
        ]
        replies = self.context.ask(items)
        return [(choice.score, choice.greedy) for reply in replies for choice in reply.choices]

    def loglikelihood_rolling(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of each text; raises a `Failure` for one beyond the model's context."""
        from alignlab.models.choices import text_ids
        from alignlab.models.truncation import context_length

        subject: Any = self.context.subject
        model, tokenizer = subject.loaded
        longest = context_length(model.config)
        texts = [request.args[0] for request in requests]
        for text in texts:
            if longest and len(text_ids(tokenizer, text)) >= longest:
                what = f"a text of the task is longer than the model's context of {longest} tokens"
                raise failure(SETTING, what, "leave this task out, or use a model with a longer context")
        items = [Item(digest("lm_eval", text), "", choices=(text,), ends=False) for text in texts]
        return [reply.choices[0].score for reply in self.context.ask(items)]

    def generate_until(self, requests: "list[Instance]", disable_tqdm: bool = False) -> list[str]:
        """Return for each context a completion, cut at the first of the task's stop texts."""
        items = [completing(*request.args) for request in requests]
        texts = [reply.text for reply in self.context.ask(items)]
        return [until(text, request.args[1].get("until")) for text, request in zip(texts, requests, strict=True)]


def completing(text: str, how: dict[str, Any]) -> Item:
    """Return the item of a request: greedy, unless the task samples."""
    temperature = float(how.get("temperature") or 0.0) if how.get("do_sample") else 0.0
    tokens = int(how.get("max_gen_toks") or LONGEST)
    return Item(digest("lm_eval", text), text, temperature=temperature, max_new_tokens=tokens)


def until(text: str, stops: str | list[str] | None) -> str:
    """Return a text up to the first stop text."""
    for stop in [stops] if isinstance(stops, str) else stops or []:
        text = text.partition(stop)[0] if stop else text
    return text
