"""Red-team prompts: those of the data set, or what a model writes about topics."""

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from alignlab.config import schema
from alignlab.config.ai_labels import RedTeam
from alignlab.errors import failure
from alignlab.runtime.files import digest

if TYPE_CHECKING:
    from alignlab.chat import Turn
    from alignlab.models.sampling import Completion


def red_team_prompts(
    settings: schema.Config, method: RedTeam, write: "Callable[[Sequence[Sequence[Turn]]], Sequence[Completion]]"
) -> list[dict[str, Any]]:
    """Return the red-team prompts as rows; `write` answers requests for prompts about topics.

    Each text is kept once; unfinished and empty ones are left out. Raises a `Failure` where none is left.
    """
    if not method.topics:
        return prompts_of_kinds(settings, method.red_team, method.prompts)
    topics = [method.topics[number % len(method.topics)] for number in range(method.prompts)]
    requests: list[list[Turn]] = [
        [{"role": "user", "content": method.topic_request.replace("{topic}", topic)}] for topic in topics
    ]
    topic_of: dict[str, str] = {}
    for completion, topic in zip(write(requests), topics, strict=True):
        if completion.finished and completion.text:
            topic_of.setdefault(completion.text, topic)
    if not topic_of:
        raise failure("method.topics", "the model has written no prompt to its end", "see topic_request and the model")
    return [
        {"id": digest(text), "kind": topic, "prompt": [{"role": "user", "content": text}]}
        for text, topic in topic_of.items()
    ]


def most_red_team_prompts(settings: schema.Config, method: RedTeam) -> int:
    """Return how many red-team prompts there are, at most."""
    return method.prompts if method.topics else len(prompts_of_kinds(settings, method.red_team, method.prompts))


def prompts_of_kinds(settings: schema.Config, kinds: Sequence[str] | None, count: int) -> list[dict[str, Any]]:
    """Draw at most `count` training prompts of these kinds; of all kinds where rows have none or none is named."""
    from alignlab.data import view

    rows = view(settings.dataset, "prompts", "train")
    has_kinds = "kind" in rows.column_names
    chosen = [row for row in rows if not (kinds and has_kinds) or row["kind"] in kinds]
    if kinds and not chosen:
        raise failure("method.red_team", f"no prompt is of the kinds {', '.join(kinds)}", "null takes all prompts")
    return draw_rows(chosen, count, settings.seed)


def rows_of_other_kinds(settings: schema.Config, method: RedTeam, view_name: str, split: str) -> list[dict[str, Any]]:
    """Return the rows of a view whose prompts are of no red-team kind; all rows where they have no kinds."""
    from alignlab.data import view

    rows = view(settings.dataset, view_name, split)
    kinds = method.red_team if "kind" in rows.column_names else None
    return [row for row in rows if not kinds or row["kind"] not in kinds]


def draw_rows(rows: list[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """Draw at most `count` rows at random, in their order."""
    places = Random(seed).sample(range(len(rows)), min(count, len(rows)))
    return [rows[place] for place in sorted(places)]
