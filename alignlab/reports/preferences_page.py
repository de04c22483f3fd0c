"""The facts about a run of `task=preferences`, and the page that shows them without loading anything.

Agreement, bias, reliability, diversity and cost are computed from the completions and labels alone. In the pocket
world, where gold scores exist, the accuracy of the labels is computed too.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import ceil
from statistics import fmean
from typing import Any, NamedTuple

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
from alignlab.preferences.write_dataset import Data
from alignlab.reports.templates import render

CONFIDENCE = 0.95
EXAMPLES = 8  # prompts that the page shows
Rows = Sequence[Mapping[str, Any]]


class Outcome(NamedTuple):
    """What a run produced.

    Completions per prompt, labels, prompts that could not be labelled, the consensus per prompt, the data set that was
    made of it, and people's own labels.
    """

    answers: list[dict[str, Any]]
    labels: list[Labelled]
    missing: list[Unlabelled]
    agreed: dict[str, Ranked]
    data: Data
    people: list[Labelled]


def facts(config: Config, settings: Preferences, policy: str, outcome: Outcome) -> dict[str, Any]:
    """Collect everything that the page shows, as plain values for JSON."""
    weights = settings.weights
    spent = cost(outcome.labels, outcome.missing, settings)
    pairs, agree = agreement.pair_agreement(outcome.labels, outcome.people, weights)
    votes = agreement.votes(outcome.labels, weights)
    several = len({vote.labeler for vote in votes}) > 1
    drawn = [[one["text"] for one in row["answers"] for _ in range(one["drawn"])] for row in outcome.answers]
    return {
        "dataset": config.dataset.kind,
        "policy": policy,
        "judge": settings.judge.kind,
        "consensus": settings.consensus,
        "prompts": len(outcome.answers),
        "answers": sum(len(row["answers"]) for row in outcome.answers),
        "compared": sum(len(row["answers"]) > 1 for row in outcome.answers),
        "labelled": len(outcome.labels),
        "unlabelled": dict(Counter(one.why for one in outcome.missing).most_common()),
        "rows": {name: len(rows) for name, rows in outcome.data.rows.items()},
        "left_out": {why: count for why, count in outcome.data.left_out.items() if count},
        "diversity": diversity(drawn)._asdict(),
        "alpha": alpha(votes) if several else None,
        "labelers": labelers(outcome, weights),
        "right": right(config, outcome, weights),
        "cost": {**spent._asdict(), "price": spent.price, "minutes": spent.minutes},
        "people": {"price": settings.people.price, "minutes": settings.people.minutes},
        "saving": saving(spent, settings, pairs, agree)._asdict(),
        "contamination": prompt_contamination(config, outcome.answers),
    }


def labelers(outcome: Outcome, weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """Compute each labeler's reliability, position bias, consistency, and tau to the consensus."""
    reliabilities, steady = agreement.labelers(outcome.labels, weights), agreement.consistency(outcome.labels, weights)
    rows = []
    for name, bias in sorted(agreement.biases(outcome.labels, weights).items()):
        decided = bias.earlier + bias.later
        rows.append(
            {
                "name": name,
                "comparisons": decided + bias.ties,
                "ties": bias.ties,
                "earlier": wilson(bias.earlier, decided, CONFIDENCE)._asdict() if decided else None,
                "again": steady[name][0],
                "same": steady[name][1],
                "reliability": reliabilities[name].reliability if name in reliabilities else None,
                "tau": tau(name, outcome, weights),
            }
        )
    return rows


def tau(labeler: str, outcome: Outcome, weights: Mapping[str, float]) -> float | None:
    """Compute the mean over prompts of Kendall's tau-b between a labeler and the consensus (Kendall 1945)."""
    taus = []
    for labels in outcome.labels:
        own = agreement.leads(labels, weights).get(labeler, {})
        agreed = outcome.agreed[labels.id].pairs
        taus.append(agreement.tau_b([(lead, agreed[pair] - 0.5) for pair, lead in own.items()]))
    defined = [value for value in taus if value is not None]
    return fmean(defined) if defined else None


def right(config: Config, outcome: Outcome, weights: Mapping[str, float]) -> list[dict[str, Any]]:
    """Compute how often the consensus, the majority and each labeler are right; empty where there is no gold."""
    if config.dataset.pocket_world is None:
        return []
    from alignlab.evaluation.label_accuracy import gold_order, label_accuracy

    votes = agreement.votes(outcome.labels, weights)
    names = sorted({vote.labeler for vote in votes})
    agreed = {(item, *two): share for item, one in outcome.agreed.items() for two, share in one.pairs.items()}
    labels = {"consensus": agreed}
    if len(names) > 1:
        labels["majority"] = by_pair(majority(votes))
        labels |= {name: by_pair(majority([vote for vote in votes if vote.labeler == name])) for name in names}
    judged = {one.id for one in outcome.labels}
    known = gold_order([row for row in outcome.answers if row["id"] in judged])
    rows = label_accuracy(labels, known, ["majority"], config.evaluation)
    return [{"name": one.name, **one.interval._asdict(), "pairs": one.pairs} for one in rows]


def by_pair(shares: Mapping[str, float]) -> dict[tuple[str, int, int], float]:
    """Return shares of votes by prompt and pair of completions, from their names ("prompt/0-2")."""
    pairs = {}
    for name, share in shares.items():
        prompt, _, places = name.rpartition("/")
        i, j = places.split("-")
        pairs[prompt, int(i), int(j)] = share
    return pairs


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


def examples(outcome: Outcome) -> list[dict[str, Any]]:
    """Return some prompts with their completions in the order of the consensus, and the labelers' reasons."""
    rows = {row["id"]: row for row in outcome.answers}
    step = max(1, ceil(len(outcome.labels) / EXAMPLES))
    shown = []
    for labels in outcome.labels[::step]:
        row, ranked = rows[labels.id], outcome.agreed[labels.id]
        reasons: dict[int, list[str]] = {place: [] for place in ranked.order}
        for reading in labels.readings:
            for place, reason in zip(reading.shown, reading.reasons, strict=False):
                reasons[place].append(f"{reading.labeler}: {reason}")
        answers = [{"text": row["answers"][place]["text"], "reasons": reasons[place][:2]} for place in ranked.order]
        shown.append({"id": row["id"], "kind": row["kind"], "prompt": row["prompt"], "answers": answers})
    return shown


def page(known: Mapping[str, Any], shown: Sequence[Mapping[str, Any]]) -> str:
    """Render the facts and the examples as a page."""
    return render(PREFERENCES_PAGE, **known, examples=shown)


def labeling(items: Sequence[Item], criteria: Mapping[str, str]) -> str:
    """Render the instructions for the people who fill in the table."""
    return render(LABELING_PAGE, items=items, criteria=criteria, most=max(len(item.answers) for item in items))
