"""What a report says of Constitutional AI: harm step by step, the principles' work with examples, what can go wrong.

Everything is read from the run's folder: the records of revisions and labels, and the stages' measurements.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.reports.run_results import Stage, change, number
from alignlab.runtime.files import read_lines

Row = Mapping[str, Any]
STAGES = {"cai_sft": "supervised phase", "cai": "RLAIF, by DPO", "cai_ppo": "RLAIF, by PPO"}
SHOWN = 2  # examples of each principle, and of labels on either side


class Moment(NamedTuple):
    """A step on the way: what does harm then, what is right or helpful, and what innocent people are refused."""

    name: str
    harm: str
    good: str
    refused: str


class Work(NamedTuple):
    """What a principle did: how often it was drawn and its revision accepted, the harm that went, and examples."""

    name: str
    drawn: int
    accepted: str
    removed: str
    examples: list[Row]


class Risk(NamedTuple):
    """Something that can go wrong, and what was measured of it."""

    title: str
    told: list[str]


class Told(NamedTuple):
    """Everything that the section shows."""

    moments: list[Moment]
    works: list[Work]
    labels: list[Row]
    risks: list[Risk]


def told(folder: Path, stages: Sequence[Stage]) -> Told | None:
    """What the section shows; None where no stage revised or labelled anything."""
    revised = [row for stage in stages for row in read_lines(folder / stage.name / "revisions.jsonl")]
    labelled = [row for stage in stages for row in read_lines(folder / stage.name / "labels.jsonl")]
    if not revised and not labelled:
        return None
    found = {name: row for stage in stages for name, row in stage.measurements.items()}
    return Told(
        list(moments(stages, found)), list(works(revised, found)), shown_labels(labelled), list(risks(stages, found))
    )


def moments(stages: Sequence[Stage], found: Mapping[str, Row]) -> Iterator[Moment]:
    """The data after each round, then the models on held-out prompts."""
    for name, row in found.items():
        if name.startswith("data/harmful/round_"):
            rounds = name.rpartition("_")[2]
            good = percent(found.get(f"data/right/round_{rounds}"))
            name = {"0": "first answers", "1": "answers after 1 round"}.get(rounds, f"answers after {rounds} rounds")
            yield Moment(name, percent(row), good, "")
    models = [stage for stage in stages if MODEL[0] in stage.measurements]
    if models:
        rows = models[0].measurements
        yield Moment(
            "base model", *(percent(rows[name]["before"], rows[name]) if name in rows else "" for name in MODEL)
        )
    for stage in models:
        yield Moment(STAGES.get(stage.name, stage.name), *(percent(stage.measurements.get(name)) for name in MODEL))


MODEL = ("gold/harmful_compliance", "gold/helpful", "gold/over_refusal")


def percent(row: Row | None, of: Row | None = None) -> str:
    """A rate with its interval, and how much it changed from what came before it."""
    if row is None:
        return ""
    text = f"{number(row['value'], True)}% ({number(row['low'], True)}–{number(row['high'], True)})"
    moved = change(dict(row), "previous") if of is None else None
    return f"{text}, {moved.text}" if moved and moved.verdict != "unclear" else text


def works(revised: Sequence[Row], found: Mapping[str, Row]) -> Iterator[Work]:
    """What each principle did."""
    steps = list(exchanges(revised))
    for name in sorted({step["principle"] for step in steps}):
        own = [step for step in steps if step["principle"] == name]
        accepted = sum(step["accepted"] for step in own) / len(own)
        removed = percent(found.get(f"data/harm_removed/{name}"))
        examples = [step for side in (True, False) for step in islice((s for s in own if s["accepted"] == side), SHOWN)]
        yield Work(name, len(own), f"{100 * accepted:.0f}%", removed, examples)


def exchanges(revised: Sequence[Row]) -> Iterator[Row]:
    """Each round of each answer, with what it started from."""
    for row in revised:
        answer = row["answer"]
        for step in row["steps"]:
            yield {**step, "asked": row["prompt"][-1]["content"], "answer": answer}
            answer = step["revision"] if step["accepted"] else answer


def shown_labels(labelled: Sequence[Row]) -> list[Row]:
    """The surest labels and the least sure."""
    ranked = sorted(labelled, key=lambda row: -abs(row["verdict"]["label"] - 0.5))
    picked = ranked[:SHOWN] + ranked[SHOWN:][-SHOWN:]
    return [{**row, "asked": row["prompt"][-1]["content"], "label": f"{row['verdict']['label']:.2f}"} for row in picked]


def risks(stages: Sequence[Stage], found: Mapping[str, Row]) -> Iterator[Risk]:
    """What can go wrong, and the numbers that say how far it did."""
    for title, sentences in RISKS.items():
        said = [text.format(percent(found[name])) for name, text in sentences.items() if name in found]
        if said:
            yield Risk(title, said)
    moved = [(name, change(dict(row), "previous")) for name, row in stages[-1].measurements.items()]
    worse = [f"{name} {found.text}" for name, found in moved if found and found.verdict == "worse"]
    if worse and "data/dropped" in found:
        yield Risk("What the last stage has cost", [f"Clearly worse than before it: {', '.join(worse)}."])


RISKS = {
    "A judge that shares the model’s faults": {
        "data/critic_praises_harm": "Of critiques of harmful answers, {} find nothing wrong.",
        "labels/agreement": "AI labels agree with the truth on {} of the pairs that it does not tie:",
        "labels/agreement_where_model_errs": "{} where the judge’s own model would sooner say the worse answer,",
        "labels/agreement_where_model_is_right": "{} where it would sooner say the better.",
    },
    "Over-refusal": {
        "gold/over_refusal": "Of innocent requests that look harmful, {} are refused at the end.",
    },
    "Sycophancy towards the constitution": {
        "data/critic_faults_right": "Asked for faults, the critic finds some in {} of the right answers;",
        "data/right_lost": "a round makes {} of the right answers wrong.",
    },
    "A judge that looks at places": {
        "labels/order_decides": "The order of the two answers turns {} of the verdicts round;",
        "labels/ties": "{} of the labels are near even odds.",
    },
}
