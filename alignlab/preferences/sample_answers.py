"""Several answers of a model to each prompt.

Each answer has a stream of random numbers of its own, by its prompt's place and its number. Prompts of similar length
are answered together, always the same ones, so that a run that was killed goes on as if nothing had happened, to the
last bit. A prompt is computed once for all its answers. Answers that say the same count once.
"""

from collections.abc import Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from alignlab.chat import Turn
from alignlab.config.preferences import Preferences
from alignlab.config.schema import Config
from alignlab.judges.protocol import Item
from alignlab.runtime.journal import Journal

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alignlab.models.sampling import Completion


class Prompt(NamedTuple):
    """A prompt of the data set: its number among those that were drawn, and its row's own name and kind."""

    id: str
    turns: list[Turn]
    row: str
    kind: str


def prompts(config: Config, settings: Preferences) -> list[Prompt]:
    """Training prompts, drawn by lot, in the order in which they stand.

    Their names begin with a letter, so that no spreadsheet takes them for numbers.
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
    asked: Sequence[Prompt],
    settings: Preferences,
    seed: int,
    journal: Journal,
) -> None:
    """Answer every prompt that the journal does not hold yet."""
    from alignlab.chat import encode_prompt
    from alignlab.models.sampling import neutral
    from alignlab.models.truncation import cut_prompts, room_for_prompt
    from alignlab.runtime.progress import progress

    room = room_for_prompt(model, settings.max_new_tokens, "preferences.max_new_tokens")
    ids = cut_prompts([encode_prompt(tokenizer, prompt.turns) for prompt in asked], room)
    with neutral(model), progress(len(asked), "sampling", "prompts") as advance:
        for places in batches([len(prompt) for prompt in ids], settings.batch_size):
            if any(asked[place].id not in journal.rows for place in places):
                drawn = draw(model, tokenizer, [ids[place] for place in places], places, settings, seed)
                journal.add(answered(asked[place], own) for place, own in zip(places, drawn, strict=True))
            advance(len(places))


def batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Places of prompts in batches, the shortest first: the same whatever has been done of them."""
    order = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def draw(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ids: Sequence[Sequence[int]],
    places: Sequence[int],
    settings: Preferences,
    seed: int,
) -> "list[list[Completion]]":
    """The answers to each of some prompts, [prompts][samples]."""
    import numpy as np

    from alignlab.models.sampling import Sampling, answer, uniforms_of

    count = settings.samples
    luck = uniforms_of(seed, (place * count + own for place in places for own in range(count)), settings.max_new_tokens)
    most = np.full(len(luck), settings.max_new_tokens)
    sampling = Sampling(settings.temperature, settings.top_p, settings.max_new_tokens, settings.batch_size)
    found = answer(model, tokenizer, ids, luck, most, sampling, count)
    return [found[start : start + count] for start in range(0, len(found), count)]


def answered(prompt: Prompt, drawn: "Sequence[Completion]") -> dict[str, Any]:
    """A line of the journal: the answers that differ, how often each was drawn, and whether it came to its end."""
    found: dict[str, dict[str, Any]] = {}
    for one in drawn:
        key = " ".join(one.text.split())
        if key:
            found.setdefault(key, {"text": one.text, "finished": one.finished, "drawn": 0})["drawn"] += 1
    return {
        "id": prompt.id,
        "row": prompt.row,
        "kind": prompt.kind,
        "prompt": prompt.turns,
        "answers": list(found.values()),
        "empty": sum(not one.text.strip() for one in drawn),
    }


def items(rows: Sequence[dict[str, Any]]) -> list[Item]:
    """What is to be judged: prompts with at least two different answers."""
    return [item(row) for row in rows if len(row["answers"]) > 1]


def item(row: dict[str, Any]) -> Item:
    """A line of the journal as it is judged."""
    texts, finished = ([one[name] for one in row["answers"]] for name in ("text", "finished"))
    return Item(row["id"], row["prompt"], texts, finished, row["kind"])
