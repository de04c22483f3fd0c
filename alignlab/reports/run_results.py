"""The results of a run as a reader sees them: the models side by side, and what changed in one sentence.

Everything comes from files that the run left, so that a report can be written again at any time, on another machine
too.
"""

from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import NamedTuple

from alignlab.evaluation.decisions import FEWEST_CLUSTERS
from alignlab.evaluation.scores import DifferenceRecord, IntervalRecord, Measurement
from alignlab.pipeline.run_folder import PlannedStage, Result, read_plan, read_result
from alignlab.reports.measure_names import label, label_by_kind

OF_DATA = ("data/", "labels/")  # groups of measures about what a stage was trained on
NO_INTERVAL = "no interval"
CONFIDENCE = 0.95  # of the verdicts in words
HEADLINES = (  # what a page is about: the first of these that was measured, where a result has no primary measures
    "gold/harmful_compliance",
    "refusal/harmful_answered",
    "toxicity/rate",
    "reward/accuracy",
    "gold/score",
    "reward/held_out",
    "pairs/accuracy",
    "eval/perplexity",
    "length/mean",  # rather than reward/mean, the reward that PPO was trained on
)
EXPLORATORY = (
    "These are exploratory: their changes are grey, not corrected for their number, and some are chance. "
    "To test one, name it in evaluation.primary."
)


class Stage(NamedTuple):
    """A stage of a run: its name, whether it ran or was reused, and its result."""

    name: str
    action: str
    result: Result

    @property
    def measurements(self) -> dict[str, Measurement]:
        """Return the rows of the result by their names."""
        return {row["name"]: row for row in self.result["measurements"]}


class Change(NamedTuple):
    """A paired difference as text: `verdict` is better, worse, changed, or unclear.

    `alone` is the verdict without the correction for the number of differences, and `p` shows both p-values.
    """

    text: str
    interval: str
    verdict: str
    alone: str
    p: str
    record: DifferenceRecord


class Cell(NamedTuple):
    """One model's value of one measure; the change is against the previous model."""

    text: str
    interval: str
    ends: tuple[float, float, float]  # low, value, high
    change: Change | None


class Row(NamedTuple):
    """One measure over the models; a cell is None where a model was not measured.

    `overall` is last minus base. `last_stage` is last minus the model before it; None where that is the base model.
    `controls` are the scores of subjects that read no question. `place` is that among the primary measures, None for an
    exploratory one.
    """

    name: str
    label: str
    better: str
    n: int
    share: bool  # shown in percent
    clusters: int
    cells: list[Cell | None]
    overall: Change | None
    last_stage: Change | None = None
    controls: str = ""
    scorer: str = ""
    place: int | None = 0

    @property
    def exploratory(self) -> bool:
        """Return whether changes of the measure are in no test, though it has a direction."""
        return self.place is None and self.better != "neither"

    @property
    def basis(self) -> str:
        """Return what a value rests on, as text: its scorer and its number of rows."""
        return rests_on(self.n, self.scorer)

    @property
    def ends(self) -> list[tuple[float, float, float] | None]:
        """Return low, value and high of each model."""
        return [cell and cell.ends for cell in self.cells]

    @property
    def detectable(self) -> str:
        """Return the smallest true change to the base model that would be clear in 80 of 100 runs; empty if unknown."""
        smallest = self.overall and self.overall.record.get("detectable")
        return f"≥ {number(smallest, self.share)}{' points' * self.share}" if smallest else ""


class Table(NamedTuple):
    """Models side by side, in the order of the chain; `note` says how to read them."""

    title: str
    models: list[str]
    rows: list[Row]
    folded: bool = False  # in a report
    note: str = ""


def read_stages(folder: Path) -> list[Stage]:
    """Read the finished stages of the run in a folder, in their order."""
    finished = [one for one in read_plan(folder) if one["action"] != "stopped"]
    return [Stage(one["stage"], one["action"], read_result(folder / one["stage"])) for one in finished]


def read_stopped(folder: Path) -> PlannedStage | None:
    """Read the stage that an error stopped; None for a finished run."""
    return next((one for one in read_plan(folder) if one["action"] == "stopped"), None)


def side_by_side(stages: list[Stage]) -> list[Table]:
    """Build the tables: all models beside the base model (the main measures in two), and one per other stage."""
    chain = [stage for stage in stages if any("before" in row for row in stage.result["measurements"])]
    models = ["base", *(stage.name for stage in chain)]
    rows = list(chain_rows(chain))
    main = [row for row in rows if is_main(row.name)]
    tables = [
        Table("Before and after", models, [row for row in main if not row.exploratory]),
        Table("Exploratory measures", models, [row for row in main if row.exploratory], note=EXPLORATORY),
        Table("By kind of prompt", models, [row for row in rows if label_by_kind(row.name)], folded=True),
        Table(
            "Training data and AI labels", models, [row for row in rows if row.name.startswith(OF_DATA)], folded=True
        ),
        *(Table(stage.name, [stage.name], own_rows(stage)) for stage in stages if stage not in chain),
    ]
    return [table for table in tables if table.rows]


def is_main(name: str) -> bool:
    """Return whether a measure is about a model as a whole: not about one kind of prompt, nor about training data."""
    return not label_by_kind(name) and not name.startswith(OF_DATA)


def chain_rows(chain: list[Stage]) -> Iterator[Row]:
    """Yield a row for each measure of any model of the chain, in the order of the last model that has it."""
    measured = [stage.measurements for stage in chain]
    for name in dict.fromkeys(name for rows in reversed(measured) for name in rows):
        rows = [of_stage.get(name) for of_stage in measured]
        last = next(row for row in reversed(rows) if row)
        base = next((row["before"] for row in rows if row and "before" in row), None)
        share = is_share(last)
        cells = [None if base is None else cell(base, share, None)]
        cells += [None if row is None else cell(row, share, change(row, "previous")) for row in rows]
        last_stage = change(rows[-1], "previous") if len(rows) > 1 and rows[-1] else None
        size = (last["n"], share, clusters_of(last))
        yield Row(name, label(name), last["better"], *size, cells, change(last, "before"), last_stage, *facts(last))


def facts(row: Measurement) -> tuple[str, str, int | None]:
    """Return the controls of a measure as text, its scorer, and its place among the primary measures.

    Results of older versions have no such place: all their measures were tested.
    """
    older = HEADLINES.index(row["name"]) if row["name"] in HEADLINES else len(HEADLINES)
    return controls_text(row), row.get("scorer", ""), row.get("primary", older)


def controls_text(row: Measurement) -> str:
    """Return what the controls of a measure score, as text; nothing for a measure without controls."""
    share = is_share(row)
    scores = [f"{name} {value_text(value, share)}" for name, value in row.get("controls", {}).items()]
    return ", ".join(scores)


def own_rows(stage: Stage) -> list[Row]:
    """Return the rows of a stage that is compared with no other model."""
    return [
        Row(
            row["name"], label(row["name"]), row["better"], row["n"], is_share(row), clusters_of(row),
            [cell(row, is_share(row), None)], None, None, *facts(row),
        )
        for row in stage.result["measurements"]
    ]  # fmt: skip


def is_share(row: Measurement) -> bool:
    """Return whether a measure is shown in percent."""
    return bool(row.get("rate")) or row["name"].endswith("accuracy")


def clusters_of(row: Measurement) -> int:
    """Return the number of independent rows of a measure; results of older versions hold rows alone."""
    return row.get("clusters", row["n"])


def ends(interval: IntervalRecord) -> tuple[float, float]:
    """Return the ends of an interval; infinite where one prompt tells nothing."""
    low, high = interval["low"], interval["high"]
    return (-inf if low is None else low), (inf if high is None else high)


def cell(interval: IntervalRecord, share: bool, change: Change | None) -> Cell:
    """Format a value and its interval."""
    value, (low, high) = interval["value"], ends(interval)
    shown = (value, value, value) if interval["low"] is None else (low, value, high)
    return Cell(value_text(value, share), interval_text(interval, share), shown, change)


def interval_text(interval: IntervalRecord, share: bool) -> str:
    """Format an interval, or say that there is none."""
    if interval["low"] is None or interval["high"] is None:
        return NO_INTERVAL
    low, high = (number(end, share) for end in (interval["low"], interval["high"]))
    return f"{low} to {high}" if interval["low"] < 0 else f"{low}–{high}"


def change(row: Measurement, against: str) -> Change | None:
    """Format the difference of a measure to an earlier model (`before` or `previous`); None where there is none."""
    difference = row["difference"].get(against)
    if not difference:
        return None
    share, (low, high) = is_share(row), ends(difference)
    alone = "unclear" if low <= 0 <= high or clusters_of(row) < FEWEST_CLUSTERS else direction(row, difference["value"])
    adjusted = difference.get("p_adjusted")
    exploratory = row["better"] != "neither" and row.get("primary", 0) is None
    seen = not exploratory and (adjusted is None or adjusted < 1 - CONFIDENCE)
    text = signed(difference["value"], share) + (" points" if share else "")
    shown = f"{signed(low, share)} to {signed(high, share)}" if difference["low"] is not None else NO_INTERVAL
    return Change(text, shown, alone if seen else "unclear", alone, p_text(difference), difference)


def direction(row: Measurement, value: float) -> str:
    """Return what a change of a measure means."""
    if row["better"] == "neither":
        return "changed"
    return "better" if (value > 0) == (row["better"] == "higher") else "worse"


def p_text(difference: DifferenceRecord) -> str:
    """Format the p-value of a difference, and the corrected one."""
    if difference.get("p") is None:
        return ""
    adjusted = difference["p_adjusted"]
    corrected = "not corrected" if adjusted is None else f"corrected {p_number(adjusted)}"
    return f"p {p_number(difference['p'])}, {corrected}"


def p_number(p: float) -> str:
    """Format a p-value."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def number(value: float, share: bool) -> str:
    """Format a number: shares in percent with one decimal, others with about three digits."""
    if share:
        return f"{100 * value:.1f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def rests_on(n: int, scorer: str) -> str:
    """Return what a value rests on: its scorer, if it has one, and its number of rows."""
    return f"by {scorer}, n = {n:,}" if scorer else f"n = {n:,}"


def value_text(value: float, share: bool) -> str:
    """Format a value with its unit."""
    return number(value, share) + "%" * share


def signed(value: float, share: bool) -> str:
    """Format a difference with its sign, and with a minus sign instead of a hyphen."""
    text = number(abs(value), share)
    if not text.strip("0.,"):
        return text
    return ("+" if value > 0 else "−") + text
