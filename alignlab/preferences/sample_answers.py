"""Several answers to each prompt, recorded in a journal: by a model that is loaded here, or by one behind a server."""

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.chat import Turn
from alignlab.config.preferences import Preferences
from alignlab.config.schema import Config
from alignlab.judges.protocol import Item, item_of
from alignlab.runtime.journal import Journal

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignlab.models.sampling import Completion


class Prompt(NamedTuple):
    """A prompt that is answered."""

    id: str  # its number among those that were drawn
    turns: list[Turn]
    row: str  # the id of its row in the data set
    kind: str  # of its row


def draw_prompts(config: Config, settings: Preferences) -> list[Prompt]:
    """Draw training prompts at random, in the order of the data set.

    Their ids begin with a letter, so that no spreadsheet takes them for numbers.
    """
    from alignlab.data import view

    rows = view(config.dataset, "prompts", "train")
    count = min(settings.prompts or len(rows), len(rows))
    places = sorted(Random(f"prompts {config.seed}").sample(range(len(rows)), count))
    return [
        Prompt(f"p{number:06}", row["prompt"], str(row.get("id") or ""), row.get("kind") or "")
        for number, row in enumerate(rows.select(places).to_list())
    ]


def sample_answers(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Prompt],
    settings: Preferences,
    seed: int,
    journal: Journal,
) -> None:
    """Answer the prompts that the journal does not hold yet, and record the answers batch by batch."""
    from alignlab.models.answers import sample_several
    from alignlab.models.sampling import Sampling

    count = settings.samples
    drawn = sample_several(
        model,
        tokenizer,
        [prompt.turns for prompt in prompts],
        count,
        Sampling(settings.temperature, settings.top_p, settings.max_new_tokens, settings.batch_size),
        key=lambda place, number: (seed, place * count + number),
        wanted=lambda place: prompts[place].id not in journal.rows,
        setting="preferences.max_new_tokens",
    )
    for batch in drawn:
        journal.add(answers_row(prompts[place], completions) for place, completions in batch.items())


def answers_row(prompt: Prompt, completions: "Sequence[Completion]") -> dict[str, Any]:
    """Return the journal's row of a prompt: its different answers, and how many were empty."""
    from alignlab.models.answers import different

    return {
        "id": prompt.id,
        "row": prompt.row,
        "kind": prompt.kind,
        "prompt": prompt.turns,
        "answers": [answer._asdict() for answer in different(completions)],
        "empty": sum(not completion.text.strip() for completion in completions),
    }


def items(rows: Sequence[dict[str, Any]]) -> list[Item]:
    """Return the rows of the journal with at least two different answers as items to judge."""
    from alignlab.models.answers import Answer

    return [
        item_of(row["id"], row["prompt"], [Answer(**answer) for answer in row["answers"]], row["kind"])
        for row in rows
        if len(row["answers"]) > 1
    ]
