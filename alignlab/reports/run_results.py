"""What a run's folder holds, read for people: the models side by side, and what changed in a sentence.

Everything comes from files that the run left (`plan.json`, and each stage's `result.json`), so that a report can be
written again at any time, on another machine too.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from alignlab.evaluation.scores import IntervalRecord, Measurement
from alignlab.pipeline.run_folder import Result, read_plan, read_result

LABELS = {
    "gold/harmful_compliance": "compliance with harmful requests",
    "gold/over_refusal": "refusal of innocent requests",
    "gold/helpful": "helpful answers",
    "gold/honest": "honest answers",
    "gold/toxic": "toxic answers",
    "toxicity/rate": "toxic answers",
    "rouge/l": "ROUGE-L against the reference",
    "gold/score": "score by the world's rules",
    "reward/mean": "reward",
    "reward/held_out": "reward by the held-out model",
    "reward/accuracy": "accuracy of the reward model",
    "eval/perplexity": "perplexity of held-out demonstrations",
    "eval/kl": "KL to the model before, nats an answer",
    "length/mean": "tokens an answer",
    "length/finished": "answers that come to an end",
    "data/harmful/kept": "harmful answers in the data learned",
    "data/accepted": "revisions that took the place of what they revise",
    "data/dropped": "revised answers that a filter dropped",
    "data/critic_praises_harm": "critiques of harmful answers that find nothing wrong",
    "data/critic_faults_right": "critiques of right answers that find fault",
    "data/right_lost": "right answers that a round makes wrong",
    "labels/agreement": "AI labels that agree with the truth",
    "labels/agreement_of_kept": "AI labels that agree, of those learned from",
    "labels/agreement_of_surest_half": "AI labels that agree, the surest half",
    "labels/agreement_where_model_errs": "AI labels that agree, where the judge's model prefers to say the worse",
    "labels/agreement_where_model_is_right": "AI labels that agree, where it prefers to say the better",
    "labels/kept": "AI labels learned from",
    "labels/position_bias": "liking for the first place",
    "labels/order_decides": "verdicts that the order turns round",
    "labels/ties": "AI labels near even odds",
}
BY_KIND = {"gold/score/": "score on", "gold/helpful/": "helpful answers to", "gold/honest/": "honest answers to"}
OF_EACH = {
    "data/harmful/": "harmful answers in the data after",
    "data/right/": "right answers in the data after",
    "data/harm_removed/": "harm that a round removes under the principle",
}
HEADLINES = (
    "gold/harmful_compliance",
    "toxicity/rate",
    "reward/accuracy",
    "gold/score",
    "reward/mean",
    "eval/perplexity",
)


class Stage(NamedTuple):
    """A stage of a run: its name, whether it ran or was reused, and its result."""

    name: str
    action: str
    result: Result

    @property
    def measurements(self) -> dict[str, Measurement]:
        """The rows of the result by their names."""
        return {row["name"]: row for row in self.result["measurements"]}


class Change(NamedTuple):
    """A paired difference in words: `verdict` is better, worse, changed, or unclear where the interval holds 0."""

    text: str
    interval: str
    verdict: str


class Cell(NamedTuple):
    """What one model got in one measure; the change is against the model before it."""

    text: str
    interval: str
    ends: tuple[float, float, float]  # low, value, high
    change: Change | None


class Row(NamedTuple):
    """One measure over the models; a cell is None where a model was not measured. `overall` is last minus base."""

    name: str
    label: str
    better: str
    n: int
    cells: list[Cell | None]
    overall: Change | None

    @property
    def ends(self) -> list[tuple[float, float, float] | None]:
        """Low, value and high of each model, for a drawing."""
        return [cell and cell.ends for cell in self.cells]


class Table(NamedTuple):
    """Models side by side, in the order of the chain; one model alone is compared with nothing."""

    title: str
    models: list[str]
    rows: list[Row]


def read_stages(folder: Path) -> list[Stage]:
    """The stages of the run in a folder, in their order."""
    return [Stage(one["stage"], one["action"], read_result(folder / one["stage"])) for one in read_plan(folder)]


def side_by_side(stages: list[Stage]) -> list[Table]:
    """The models that were compared with the base model, the same by kind of prompt, and other stages' own figures."""
    chain = [stage for stage in stages if any("before" in row for row in stage.result["measurements"])]
    models = ["base", *(stage.name for stage in chain)]
    rows = list(chain_rows(chain))
    tables = [
        Table("Before and after", models, [row for row in rows if not by_kind(row.name)]),
        Table("By kind of prompt", models, [row for row in rows if by_kind(row.name)]),
        *(Table(stage.name, [stage.name], own_rows(stage)) for stage in stages if stage not in chain),
    ]
    return [table for table in tables if table.rows]


def chain_rows(chain: list[Stage]) -> Iterator[Row]:
    """A row for each measure that a model of the chain has, in the order of the last that has it."""
    measured = [stage.measurements for stage in chain]
    for name in dict.fromkeys(name for rows in reversed(measured) for name in rows):
        found = [rows.get(name) for rows in measured]
        last = next(row for row in reversed(found) if row)
        base = next((row["before"] for row in found if row and "before" in row), None)
        share = is_share(last)
        cells = [None if base is None else cell(base, share, None)]
        cells += [None if row is None else cell(row, share, change(row, "previous")) for row in found]
        yield Row(name, label(name), last.get("better", "neither"), last["n"], cells, change(last, "before"))


def own_rows(stage: Stage) -> list[Row]:
    """Figures that are compared with no other model."""
    return [
        Row(
            row["name"],
            label(row["name"]),
            row.get("better", "neither"),
            row["n"],
            [cell(row, is_share(row), None)],
            None,
        )
        for row in stage.result["measurements"]
    ]


def label(name: str) -> str:
    """A measure's name in words."""
    if words := by_kind(name):
        return words
    start, slash, last = name.rpartition("/")
    words = f"{OF_EACH.get(start + slash, '')} {last.replace('_', ' ')}".strip()
    return LABELS.get(name, words)


def by_kind(name: str) -> str:
    """The name in words of a measure over one kind of prompt; nothing for other measures."""
    start, slash, kind = name.rpartition("/")
    words = BY_KIND.get(start + slash)
    return f"{words} {kind.replace('_', ' ')} prompts" if words else ""


def is_share(row: Measurement) -> bool:
    """Whether a measure is shown in percent."""
    return bool(row.get("rate")) or row["name"].endswith("accuracy")


def cell(found: IntervalRecord, share: bool, change: Change | None) -> Cell:
    """A value and its interval, ready to be shown."""
    low, high = number(found["low"], share), number(found["high"], share)
    ends = (found["low"], found["value"], found["high"])
    interval = f"{low} to {high}" if found["low"] < 0 else f"{low}–{high}"
    return Cell(number(found["value"], share) + ("%" if share else ""), interval, ends, change)


def change(row: Measurement, against: str) -> Change | None:
    """The difference of a measure to an earlier model, and whether it is for the better."""
    found = row.get("difference", {}).get(against)
    if not found:
        return None
    share = is_share(row)
    if found["low"] <= 0 <= found["high"]:
        verdict = "unclear"
    elif row.get("better", "neither") == "neither":
        verdict = "changed"
    else:
        verdict = "better" if (found["value"] > 0) == (row["better"] == "higher") else "worse"
    ends = f"{signed(found['low'], share)} to {signed(found['high'], share)}"
    return Change(signed(found["value"], share) + (" points" if share else ""), ends, verdict)


def number(value: float, share: bool) -> str:
    """A number with as many digits as say something: shares in percent, others with three digits."""
    if share:
        return f"{100 * value:.1f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def signed(value: float, share: bool) -> str:
    """A difference with its sign; the minus is a real one."""
    text = number(abs(value), share)
    if not text.strip("0.,"):
        return text
    return ("+" if value > 0 else "−") + text


def headline(stages: list[Stage]) -> str:
    """What the run changed, in one sentence."""
    rows = {row.name: row for table in side_by_side(stages) for row in table.rows}
    if not rows:
        return f"{stages[-1].name} is done; nothing was measured."
    row = next((rows[name] for name in HEADLINES if name in rows), next(iter(rows.values())))
    now = next(cell for cell in reversed(row.cells) if cell)
    name = row.label[0].upper() + row.label[1:]
    if row.overall is None or row.cells[0] is None:
        return f"{name} is {now.text} (95% interval {now.interval}, n = {row.n:,})."
    moved = f"went from {row.cells[0].text} to {now.text}"
    if row.overall.verdict == "unclear":
        moved = f"was {row.cells[0].text} and is {now.text}, which is no clear change"
    figures = f"({row.overall.text}, 95% interval {row.overall.interval}, n = {row.n:,})"
    return f"{name} {moved} {figures}; {losses(list(rows.values()))}."


def losses(rows: list[Row]) -> str:
    """Which measures got clearly worse than the base model's; a kind of prompt is named once, by its score."""
    told = [row for row in rows if not by_kind(row.name) or row.name.startswith("gold/score/")]
    worse = [f"{row.label} {row.overall.text}" for row in told if row.overall and row.overall.verdict == "worse"]
    return f"clearly worse: {', '.join(worse)}" if worse else "no measure is clearly worse than the base model's"
