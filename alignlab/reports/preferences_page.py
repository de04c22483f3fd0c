"""What a run of `task=preferences` found, as facts and as one page that asks nothing of the network.

Agreement, bias, reliability, diversity and cost are worked out here from answers and labels alone; in the pocket world,
whose truth is known, how right the labels are stands beside them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from statistics import fmean
from typing import Any, NamedTuple

from alignlab.config.dataset import pocket_world
from alignlab.config.preferences import Preferences
from alignlab.config.schema import Config
from alignlab.evaluation.scores import Measurement, row_of
from alignlab.evaluation.statistics import Interval, wilson
from alignlab.judges.protocol import Item, Labelled, Unlabelled
from alignlab.pipeline.run_folder import LABELING_PAGE, PREFERENCES_PAGE
from alignlab.preferences import agreement
from alignlab.preferences.agreement import Ranked
from alignlab.preferences.consensus import alpha, majority
from alignlab.preferences.cost import cost, saving
from alignlab.preferences.diversity import diversity
from alignlab.preferences.write_dataset import Made
from alignlab.reports.templates import render

CONFIDENCE = 0.95
EXAMPLES = 8  # items that the page shows
Rows = Sequence[Mapping[str, Any]]


class Outcome(NamedTuple):
    """What a run has come to: answers, labels, what could not be labelled, the consensus, and what was made of it."""

    answers: list[dict[str, Any]]
    labels: list[Labelled]
    missing: list[Unlabelled]
    agreed: dict[str, Ranked]
    made: Made
    people: list[Labelled]


def facts(config: Config, settings: Preferences, policy: str, found: Outcome) -> dict[str, Any]:
    """Everything that is known of a run, as JSON writes it."""
    weights = settings.weights
    spent = cost(found.labels, found.missing, settings)
    pairs, agree = agreement.same(found.labels, found.people, weights)
    said = agreement.votes(found.labels, weights)
    several = len({vote.labeler for vote in said}) > 1
    drawn = [[one["text"] for one in row["answers"] for _ in range(one["drawn"])] for row in found.answers]
    return {
        "dataset": config.dataset.kind,
        "policy": policy,
        "judge": settings.judge.kind,
        "consensus": settings.consensus,
        "prompts": len(found.answers),
        "answers": sum(len(row["answers"]) for row in found.answers),
        "compared": sum(len(row["answers"]) > 1 for row in found.answers),
        "labelled": len(found.labels),
        "unlabelled": dict(Counter(one.why for one in found.missing).most_common()),
        "rows": {name: len(rows) for name, rows in found.made.rows.items()},
        "left_out": {why: count for why, count in found.made.left_out.items() if count},
        "diversity": diversity(drawn)._asdict(),
        "alpha": alpha(said) if several else None,
        "labelers": labelers(found, weights),
        "right": right(config, found, weights),
        "cost": {**spent._asdict(), "price": spent.price, "minutes": spent.minutes},
        "people": {"price": settings.people.price, "minutes": settings.people.minutes},
        "saving": saving(spent, settings, pairs, agree)._asdict(),
        "contamination": prompt_contamination(config, found.answers),
    }


def labelers(found: Outcome, weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """What is known of each labeler: reliability, position bias, steadiness, and tau to what was agreed on."""
    known, steady = agreement.labelers(found.labels, weights), agreement.steadiness(found.labels, weights)
    rows = []
    for name, bias in sorted(agreement.biases(found.labels, weights).items()):
        decided = bias.earlier + bias.later
        rows.append(
            {
                "name": name,
                "comparisons": decided + bias.ties,
                "ties": bias.ties,
                "earlier": wilson(bias.earlier, decided, CONFIDENCE)._asdict() if decided else None,
                "again": steady[name][0],
                "same": steady[name][1],
                "reliability": known[name].reliability if name in known else None,
                "tau": tau(name, found, weights),
            }
        )
    return rows


def tau(labeler: str, found: Outcome, weights: Mapping[str, float]) -> float | None:
    """The mean over items of Kendall's tau-b between a labeler's preferences and the consensus (Kendall 1945)."""
    taus = []
    for labels in found.labels:
        own = agreement.preferences(labels, weights).get(labeler, {})
        agreed = found.agreed[labels.id].pairs
        taus.append(agreement.tau_b([(lead, agreed[pair] - 0.5) for pair, lead in own.items()]))
    known = [one for one in taus if one is not None]
    return fmean(known) if known else None


def right(config: Config, found: Outcome, weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """How right the consensus, a majority and each labeler are, where the world knows."""
    if pocket_world(config.dataset) is None:
        return []
    from alignlab.evaluation.label_accuracy import rightness, truth

    said = agreement.votes(found.labels, weights)
    names = sorted({vote.labeler for vote in said})
    agreed = {(item, *two): share for item, one in found.agreed.items() for two, share in one.pairs.items()}
    labels = {"consensus": agreed}
    if len(names) > 1:
        labels["majority"] = placed(majority(said))
        labels |= {name: placed(majority([vote for vote in said if vote.labeler == name])) for name in names}
    judged = {one.id for one in found.labels}
    known = truth([row for row in found.answers if row["id"] in judged])
    rows = rightness(labels, known, ["majority"], config.evaluation)
    return [{"name": one.name, **one.interval._asdict(), "pairs": one.pairs} for one in rows]


def placed(shares: Mapping[str, float]) -> dict[tuple[str, int, int], float]:
    """Shares of votes by item and places, from the names of votes."""
    found = {}
    for name, share in shares.items():
        item, _, two = name.rpartition("/")
        i, j = two.split("-")
        found[item, int(i), int(j)] = share
    return found


def prompt_contamination(config: Config, answers: Rows) -> list[dict[str, Any]]:
    """Count the held-out rows of the data set that are among the prompts that were answered."""
    from alignlab.data.contamination import contamination
    from alignlab.data.prepared import prepare

    splits = prepare(config.dataset).splits
    train = [{"prompt": row["prompt"], "completions": [one["text"] for one in row["answers"]]} for row in answers]
    held_out = {name: splits[name] for name in ("validation", "test")}
    return [split.record() for split in contamination({"train": train, **held_out})]


def measurements(known: Mapping[str, Any]) -> list[Measurement]:
    """Return the facts that have an interval as `result.json` holds them, so that a sweep can compare runs.

    A labeler's reliability has no interval: both of its ends are the value itself.
    """
    rows = []
    if known["compared"]:
        share = wilson(known["labelled"], known["compared"], CONFIDENCE)
        rows.append(row_of("labels/labelled", share, known["compared"], "higher", rate=True))
    for one in known["right"]:
        ends = Interval(one["value"], one["low"], one["high"])
        rows.append(row_of(f"labels/right/{one['name']}", ends, one["pairs"], "higher"))
    for one in known["labelers"]:
        if (value := one["reliability"]) is not None:
            ends = Interval(value, value, value)
            rows.append(row_of(f"labels/reliability/{one['name']}", ends, one["comparisons"], "higher"))
    return rows


def examples(found: Outcome) -> list[dict[str, Any]]:
    """Some items with their answers in the order that was agreed on, and what was said of each."""
    rows = {row["id"]: row for row in found.answers}
    step = max(1, ceil(len(found.labels) / EXAMPLES))
    shown = []
    for labels in found.labels[::step]:
        row, ranked = rows[labels.id], found.agreed[labels.id]
        said: dict[int, list[str]] = {place: [] for place in ranked.order}
        for reading in labels.readings:
            for place, reason in zip(reading.shown, reading.reasons, strict=False):
                said[place].append(f"{reading.labeler}: {reason}")
        answers = [{"text": row["answers"][place]["text"], "said": said[place][:2]} for place in ranked.order]
        shown.append({"id": row["id"], "kind": row["kind"], "prompt": row["prompt"], "answers": answers})
    return shown


def page(known: Mapping[str, Any], shown: Sequence[Mapping[str, Any]]) -> str:
    """The facts and the examples as one page; everything in it is escaped."""
    return render(PREFERENCES_PAGE, **known, examples=shown)


def labeling(items: Sequence[Item], criteria: Mapping[str, str]) -> str:
    """Instructions for the people who fill in the table, as a page to print."""
    return render(LABELING_PAGE, items=items, criteria=criteria, most=max(len(item.answers) for item in items))
