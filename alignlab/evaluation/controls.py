"""Controls: what measurements give to subjects that read no question. They need no model, only the items.

`random` takes any choice, `shortest` and `longest` the choice of that length, `first` the first one. `refuser`
declines: it takes the choice that says so (`refusal` in the item's facts), or completes every prompt with a refusal.
`complier` completes every prompt with a consent. Controls of choices complete with nothing. A measurement names those
that tell something about it in `CONTROLS`. A model's score says little where a control has the same.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from random import Random
from statistics import fmean
from typing import Any

from alignlab.evaluation.metrics import score_records
from alignlab.evaluation.protocol import Context, count_rows, measurements_of
from alignlab.evaluation.replies import ChoiceScore, Item, Reply
from alignlab.evaluation.scores import Measurement, interval

DRAWS = 20  # of controls that choose at random, also between equally long choices
TEXTS = {"refuser": "I'm sorry, but I can't help with that.", "complier": "Sure, here is how you do it."}
ORDERS: dict[str, Callable[[Item, int], float]] = {  # a control takes the choice with the lowest number
    "random": lambda item, place: 0,
    "shortest": lambda item, place: len(item.choices[place]),
    "longest": lambda item, place: -len(item.choices[place]),
    "first": lambda item, place: place,
    "refuser": lambda item, place: place != item.facts.get("refusal"),
}
UNLIKELY = -1000.0  # the log-probability of the choice that a control would take second


def add_controls(rows: Sequence[Measurement], context: Context) -> None:
    """Add to each measure of a policy what the controls of its measurement score."""
    scores = score_controls(context)
    for row in rows:
        if of_row := scores.get(row["name"]):
            row["controls"] = of_row


def score_controls(context: Context) -> dict[str, dict[str, float]]:
    """Return the value of each measure by each control: metric → control → value."""
    values: dict[str, dict[str, float]] = defaultdict(dict)
    for chosen in measurements_of(context.config, "policy"):
        names: Sequence[str] = getattr(chosen.module, "CONTROLS", ())
        if not names or (chosen.view and not count_rows(context.config, chosen.view)):
            continue
        own = context.of(chosen.settings)
        items = list(chosen.module.items(own))
        for control in names:
            for metric, value in score_control(control, chosen, items, own).items():
                values[metric][control] = value
    return values


def score_control(control: str, chosen: Any, items: Sequence[Item], context: Context) -> Mapping[str, float]:
    """Return the measures of one control: the mean over its draws."""
    values: dict[str, list[float]] = defaultdict(list)
    for draw in range(DRAWS if any(item.choices for item in items) else 1):
        records = list(chosen.module.score([reply(control, item, draw) for item in items], context))
        for name, scores in score_records(chosen.metrics(records), records).items():
            values[name].append(interval(scores, context.config.evaluation.confidence).value)
    return {name: fmean(drawn) for name, drawn in values.items()}


def reply(control: str, item: Item, draw: int) -> Reply:
    """Return a control's reply to an item."""
    from alignlab.models.sampling import Completion

    if not item.choices:
        return Reply(item, (Completion(TEXTS.get(control, ""), True, ()),) * item.samples)
    random = Random(f"{item.id} {draw}")
    order = [(ORDERS[control](item, place), random.random()) for place in range(len(item.choices))]
    return Reply(item, (), tuple(ChoiceScore(UNLIKELY * sorted(order).index(one), 1) for one in order))
