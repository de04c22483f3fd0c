"""The report's section on Constitutional AI: harm after each step, the effect of each principle, and known risks.

Everything is read from the run's folder: the records of revisions and labels, and the stages' measurements.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.evaluation.scores import IntervalRecord, Measurement
from alignlab.reports.measure_names import label
from alignlab.reports.run_results import Stage, change, interval_text, number
from alignlab.runtime.run_files import LabelRecord, RevisionRecord, read_labels, read_revisions

Rows = Mapping[str, Measurement]
STAGES = {"cai_sft": "supervised phase", "cai": "RLAIF, by DPO", "cai_ppo": "RLAIF, by PPO"}
MODEL = ("gold/harmful_compliance", "gold/helpful", "gold/over_refusal")
SHOWN = 2  # examples of accepted and of rejected revisions per principle, and of the surest and least sure labels


class Moment(NamedTuple):
    """A row of the first table: rates of harm, of right or helpful completions, and of refused innocent requests."""

    name: str
    harm: str
    good: str
    refused: str


class Principle(NamedTuple):
    """A principle: how often it was drawn, its revisions accepted, the harm that they removed, and examples."""

    name: str
    drawn: int
    accepted: str
    removed: str
    examples: list[Mapping[str, Any]]


class Risk(NamedTuple):
    """A known risk, and sentences with the measurements that show how far it occurred."""

    title: str
    sentences: list[str]


class Section(NamedTuple):
    """Everything that the section shows."""

    moments: list[Moment]
    principles: list[Principle]
    labels: list[Mapping[str, Any]]
    risks: list[Risk]


def section(folder: Path, stages: Sequence[Stage]) -> Section | None:
    """Collect what the section shows; None where no stage revised or labelled anything."""
    revisions = [row for stage in stages for row in read_revisions(folder / stage.name)]
    labels = [row for stage in stages for row in read_labels(folder / stage.name)]
    if not revisions and not labels:
        return None
    rows = {name: row for stage in stages for name, row in stage.measurements.items()}
    return Section(
        list(moments(stages, rows)), list(principles(revisions, rows)), shown_labels(labels), list(risks(stages, rows))
    )


def moments(stages: Sequence[Stage], rows: Rows) -> Iterator[Moment]:
    """Yield the data after each round, then each model on held-out prompts."""
    for name, row in rows.items():
        if name.startswith("data/harmful/round_"):
            rounds = name.rpartition("_")[2]
            title = {"0": "first completions", "1": "after 1 round"}.get(rounds, f"after {rounds} rounds")
            yield Moment(title, rate_and_change(row), rate_and_change(rows.get(f"data/right/round_{rounds}")), "")
    models = [stage for stage in stages if MODEL[0] in stage.measurements]
    if models:
        first = models[0].measurements
        yield Moment("base model", *(rate(first[name]["before"]) if name in first else "" for name in MODEL))
    for stage in models:
        rates = (rate_and_change(stage.measurements.get(name)) for name in MODEL)
        yield Moment(STAGES.get(stage.name, stage.name), *rates)


def rate(interval: IntervalRecord) -> str:
    """Return a rate in percent with its interval."""
    return f"{number(interval['value'], True)}% ({interval_text(interval, True)})"


def rate_and_change(row: Measurement | None) -> str:
    """Return a rate, and its change from the model or round before where that is clear."""
    if row is None:
        return ""
    moved = change(row, "previous")
    return f"{rate(row)}, {moved.text}" if moved and moved.verdict != "unclear" else rate(row)


def principles(revisions: Sequence[RevisionRecord], rows: Rows) -> Iterator[Principle]:
    """Yield the effect of each principle."""
    steps = list(exchanges(revisions))
    for name in sorted({step["principle"] for step in steps}):
        own = [step for step in steps if step["principle"] == name]
        accepted = sum(step["accepted"] for step in own) / len(own)
        examples = [step for side in (True, False) for step in islice((s for s in own if s["accepted"] == side), SHOWN)]
        removed = rate_and_change(rows.get(f"data/harm_removed/{name}"))
        yield Principle(name, len(own), f"{100 * accepted:.0f}%", removed, examples)


def exchanges(revisions: Sequence[RevisionRecord]) -> Iterator[Mapping[str, Any]]:
    """Yield each round of each completion, with the prompt and the completion that the round started from."""
    for row in revisions:
        answer = row["answer"]
        for step in row["steps"]:
            yield {**step, "asked": row["prompt"][-1]["content"], "answer": answer}
            answer = step["revision"] if step["accepted"] else answer


def shown_labels(labels: Sequence[LabelRecord]) -> list[Mapping[str, Any]]:
    """Return the surest labels and the least sure."""
    ranked = sorted(labels, key=lambda row: -abs(row["verdict"]["label"] - 0.5))
    picked = ranked[:SHOWN] + ranked[SHOWN:][-SHOWN:]
    return [{**row, "asked": row["prompt"][-1]["content"], "label": f"{row['verdict']['label']:.2f}"} for row in picked]


def risks(stages: Sequence[Stage], rows: Rows) -> Iterator[Risk]:
    """Yield the known risks that were measured, and what the last stage made worse."""
    for title, sentences in RISKS.items():
        measured = [text.format(rate_and_change(rows[name])) for name, text in sentences.items() if name in rows]
        if measured:
            yield Risk(title, measured)
    changes = [(name, change(row, "previous")) for name, row in stages[-1].measurements.items()]
    worse = [f"{label(name)} {moved.text}" for name, moved in changes if moved and moved.verdict == "worse"]
    if worse and "data/dropped" in rows:
        yield Risk("What the last stage made worse", [f"Clearly worse than before it: {', '.join(worse)}."])


RISKS = {
    "A judge that shares the model’s faults": {
        "data/critic_praises_harm": "Of critiques of harmful completions, {} find nothing wrong.",
        "labels/agreement": "AI labels agree with the truth on {} of the pairs that it does not tie;",
        "labels/agreement_where_model_errs": "on {} of those where the judge’s own model prefers the worse completion,",
        "labels/agreement_where_model_is_right": "and on {} of those where it prefers the better one.",
    },
    "Over-refusal": {
        "gold/over_refusal": "Of innocent requests that look harmful, {} are refused at the end.",
    },
    "Sycophancy towards the constitution": {
        "data/critic_faults_right": "When asked for faults, the critic finds some in {} of the right completions;",
        "data/right_lost": "a round makes {} of the right completions wrong.",
    },
    "Position bias of the judge": {
        "labels/order_decides": "Swapping the two completions reverses {} of the verdicts;",
        "labels/ties": "{} of the labels are ties or close to one.",
    },
}
