"""The records of a run as the report shows them: each item with every model's completion and scores, failures first.

An item is a held-out prompt, a question of a suite, or a pair of completions that a reward model scored. For each
measure it has a verdict about the change from the base model to the last one; a reward model's pair is right or wrong.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from alignlab.chat import Turn
from alignlab.pipeline.run_folder import (
    BASE_RECORDS,
    RECORDS,
    SAMPLES,
    RecordLine,
    SampleRecord,
    read_samples,
)
from alignlab.reports.measure_names import short_label
from alignlab.reports.run_results import Stage
from alignlab.runtime.files import read_lines
from alignlab.runtime.run_files import PAIR_SCORES, read_pair_scores

Verdict = Literal["worse", "wrong", "still wrong", "unchanged", "better", "right"]
# In the order of the report: failures first.
VERDICTS: tuple[Verdict, ...] = ("worse", "wrong", "still wrong", "unchanged", "right", "better")
SIGNS = {"higher": 1, "lower": -1, "neither": 0}


class ItemMeasure(NamedTuple):
    """A measure with a value per item: `sign` is 1 where higher is better, -1 where lower is, and 0 elsewhere."""

    name: str
    label: str
    sign: int
    rate: bool


class Item(NamedTuple):
    """A prompt, a text per model, each text's values by measure, and the verdict overall and by measure.

    `id` and the values are those of `records.jsonl`. A verdict is None where the measure is neither good nor bad, or
    was not measured on this item.
    """

    id: str
    kind: str
    prompt: list[Turn]
    texts: list[str]
    values: list[list[float | None]]
    verdict: Verdict
    by_measure: list[Verdict | None]


class Items(NamedTuple):
    """Items of one kind, failures first; `models` names their texts, and `source` is the file that holds them whole.

    `compared` holds the places of the two texts whose values a verdict compares; the first is None without a base.
    """

    name: str
    title: str
    source: str
    models: list[str]
    compared: tuple[int | None, int]
    measures: list[ItemMeasure]
    items: list[Item]

    @property
    def kinds(self) -> list[str]:
        """Return the kinds in the order of the items' names."""
        return sorted({item.kind for item in self.items if item.kind})

    @property
    def verdicts(self) -> dict[Verdict, int]:
        """Return the number of items of each verdict."""
        return {name: count for name in VERDICTS if (count := sum(item.verdict == name for item in self.items))}


def read_items(folder: Path, stages: Sequence[Stage]) -> list[Items]:
    """Read all records of a run: those of the chain of policies, and those of each reward model."""
    chain = [stage for stage in stages if any("before" in row for row in stage.result["measurements"])]
    sets = [policy_items(folder, chain)] if chain else []
    sets += [pair_items(folder, stage) for stage in stages if (folder / stage.name / PAIR_SCORES).exists()]
    sets += [
        policy_items(folder, [stage], base=False)
        for stage in stages
        if stage not in chain and not (folder / stage.name / PAIR_SCORES).exists()
    ]
    return [one for one in sets if one.items]


def policy_items(folder: Path, chain: Sequence[Stage], base: bool = True) -> Items:
    """Put the records of every model of a chain side by side, item by item, in the order of the last model's."""
    places = [folder / stage.name for stage in chain]
    samples = [{sample["id"]: sample for sample in read_samples(place)} for place in places]
    records = [by_id(read_records(place / RECORDS)) for place in places]
    if base:
        records = [by_id(read_records(places[-1] / BASE_RECORDS)), *records]
    measures = item_measures(chain, {name for record in records[-1].values() for name in record["values"]})
    compared = (0 if base else None, len(records) - 1)
    items = [
        item(name, records, prompt_of(samples, name), texts_of(samples, name, base), measures, compared)
        for name in dict.fromkeys([*records[-1], *samples[-1]])
    ]
    models = ["base"] * base + [stage.name for stage in chain]
    title = "Completions side by side" if any(samples) else f"Records of {chain[-1].name}"
    return Items(chain[-1].name, title, SAMPLES, models, compared, measures, failures_first(items, measures, compared))


def read_records(file: Path) -> list[RecordLine]:
    """Read the records of a model; none where there is no file."""
    records: list[Any] = read_lines(file)
    return records


def by_id(records: Sequence[RecordLine]) -> dict[str, RecordLine]:
    """Merge the records of one item over the measurements."""
    merged: dict[str, RecordLine] = {}
    for record in records:
        before = merged.get(record["id"])
        merged[record["id"]] = {**record, "values": {**before["values"], **record["values"]}} if before else record
    return merged


def item_measures(stages: Sequence[Stage], columns: set[str]) -> list[ItemMeasure]:
    """Return the measures of a chain that records hold a column of, the last stage's first."""
    rows = {row["name"]: row for stage in stages for row in stage.result["measurements"] if row["name"] in columns}
    return [ItemMeasure(name, short_label(name), SIGNS[row["better"]], row["rate"]) for name, row in rows.items()]


def prompt_of(samples: Sequence[Mapping[str, SampleRecord]], name: str) -> list[Turn]:
    """Return an item's prompt; empty for the item of a suite, whose record holds the question."""
    return next((of_model[name]["prompt"] for of_model in reversed(samples) if name in of_model), [])


def texts_of(samples: Sequence[Mapping[str, SampleRecord]], name: str, base: bool) -> list[str | None]:
    """Return the completions of a prompt: the base model's, if asked for, then each stage's."""
    texts = [of_model[name]["after"]["completion"] if name in of_model else None for of_model in samples]
    first = samples[-1].get(name)
    return [first["before"]["completion"] if first else None, *texts] if base else texts


def item(
    name: str,
    records: Sequence[Mapping[str, RecordLine]],
    prompt: list[Turn],
    texts: Sequence[str | None],
    measures: Sequence[ItemMeasure],
    compared: tuple[int | None, int],
) -> Item:
    """Build an item from its records; a record's text stands in for a completion that no sample holds."""
    own = [of_model.get(name) for of_model in records]
    kind = next((record["kind"] for record in own if record), "")
    shown = [
        text if text is not None else (record["shown"] if record else "")
        for text, record in zip(texts, own, strict=True)
    ]
    values = [[record["values"].get(one.name) if record else None for one in measures] for record in own]
    verdicts = [verdict(values, place, one, compared) for place, one in enumerate(measures)]
    return Item(name, kind, prompt, shown, values, overall(verdicts, measures), verdicts)


def verdict(
    values: Sequence[Sequence[float | None]], place: int, measure: ItemMeasure, compared: tuple[int | None, int]
) -> Verdict | None:
    """Judge the change of one measure on one item."""
    first, last = (None if at is None else values[at][place] for at in compared)
    if last is None or not measure.sign:
        return None
    bad = measure.rate and (last == 0) == (measure.sign > 0)
    if first is None:
        return ("wrong" if bad else "right") if measure.rate else None
    if (last - first) * measure.sign < 0:
        return "worse"
    if first != last:
        return "better"
    return "still wrong" if bad else "unchanged"


def overall(verdicts: Sequence[Verdict | None], measures: Sequence[ItemMeasure]) -> Verdict:
    """Return the first verdict in the order of the report over the measures that are right or wrong.

    Where no measure is, all count. Measures that the base model has no value of count only where no other one does.
    """
    rates = {given for given, one in zip(verdicts, measures, strict=True) if given and one.rate}
    judged = rates or {given for given in verdicts if given}
    judged = judged - {"wrong", "right"} or judged
    for name in ("worse", "wrong", "better", "still wrong", "right"):
        if name in judged:
            return name
    return "unchanged"


def failures_first(
    items: Sequence[Item], measures: Sequence[ItemMeasure], compared: tuple[int | None, int]
) -> list[Item]:
    """Sort items by their verdict, then by how many measures are worse, then by the loss in units of its largest."""
    losses = [[loss(one, place, measure, compared) for place, measure in enumerate(measures)] for one in items]
    largest = [max((abs(row[place]) for row in losses), default=0) or 1 for place in range(len(measures))]

    def order(at: int) -> tuple[float, ...]:
        failed = sum(given in {"worse", "wrong"} for given in items[at].by_measure)
        lost = sum(value / most for value, most in zip(losses[at], largest, strict=True))
        return (VERDICTS.index(items[at].verdict), -failed, -lost)

    return [items[at] for at in sorted(range(len(items)), key=order)]


def loss(item: Item, place: int, measure: ItemMeasure, compared: tuple[int | None, int]) -> float:
    """Return how much worse an item became by one measure; 0 where that is unknown."""
    first, last = (None if at is None else item.values[at][place] for at in compared)
    return 0.0 if last is None else measure.sign * ((first or 0.0) - last)


def pair_items(folder: Path, stage: Stage) -> Items:
    """Return the held-out pairs of a reward model; a pair is wrong where the rejected completion scores higher."""
    measure = ItemMeasure("reward", "reward", 1, rate=False)
    items = []
    for pair in read_pair_scores(folder / stage.name):
        right: Verdict = "right" if pair["chosen_reward"] > pair["rejected_reward"] else "wrong"
        values: list[list[float | None]] = [[pair["chosen_reward"]], [pair["rejected_reward"]]]
        texts = [pair["chosen"], pair["rejected"]]
        items.append(Item(pair["id"], pair["kind"], pair["prompt"], texts, values, right, [right]))
    models, title = ["chosen", "rejected"], f"Held-out pairs by {stage.name}"
    return Items(stage.name, title, PAIR_SCORES, models, (1, 0), [measure], failures_first(items, [measure], (1, 0)))
