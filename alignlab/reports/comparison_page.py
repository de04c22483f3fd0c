"""The page of a comparison: models side by side on the same prompts, what has changed, and what was decided on one.

Everything comes from the files of the comparison's folder (`alignlab.pipeline.compared_models`). The page loads nothing
from the network, and runs no script.
"""

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from alignlab.pipeline.candidates import DecisionRecord
from alignlab.pipeline.run_folder import (
    COMPARISON_PAGE,
    CONFIG,
    DECISION,
    DECISION_PAGE,
    FLIPPED,
    read_json,
    read_settings,
)
from alignlab.reports.charts import whiskers
from alignlab.reports.decision_text import headline, refused, shown
from alignlab.reports.measure_names import label, label_by_kind
from alignlab.reports.run_report import read_text
from alignlab.reports.run_results import (
    Row,
    Stage,
    Table,
    cell,
    change,
    clusters_of,
    facts,
    is_share,
    read_stages,
)
from alignlab.reports.run_summary import console_for, more_measures, primary_tables, terminal_table
from alignlab.reports.templates import render
from alignlab.reports.written import try_to_write
from alignlab.runtime.files import read_lines, write_text


class Flips(NamedTuple):
    """The records of one measure that got better and worse between two models, and some of each."""

    model: str
    measure: str
    better: int
    worse: int
    examples: list[dict[str, Any]]


def write_page(folder: Path, examples: int) -> Path:
    """Write the page of a comparison, with the decision on the last model where there is one; return its path."""
    stages = read_stages(folder)
    decision = read_json(folder / DECISION) if (folder / DECISION).exists() else None
    conclusions = list(sentences(stages))
    if decision:
        conclusions = [headline(decision), *conclusions]
    page = render(
        COMPARISON_PAGE,
        names=[stage.name for stage in stages],
        seed=read_settings(folder).get("seed", ""),
        title=conclusions[0],
        conclusions=conclusions[1:],
        checks=[shown(check) for check in decision["checks"]] if decision else [],
        tables=tables(stages),
        stages=decision["stages"] if decision else [],
        flips=[one for stage in stages[1:] for one in read_flips(folder, stage.name, examples)],
        settings=read_text(folder / CONFIG),
        whiskers=whiskers,
    )
    file = folder / (DECISION_PAGE if decision else COMPARISON_PAGE)
    write_text(file, page)
    return file


def report(decision: DecisionRecord, folder: Path, examples: int) -> None:
    """Print a decision and write its page; raise `Refused` where it is against the candidate."""
    for check in map(shown, decision["checks"]):
        print(f"{check.outcome:<10} {check.part}: {check.measure}: {check.seen}; asked: {check.asks}")
    print(headline(decision))
    for path in try_to_write("the page", lambda: write_page(folder, examples)):
        print(path)
    if not decision["accepted"]:
        raise refused(decision)


def tables(stages: list[Stage]) -> list[Table]:
    """Return the models side by side: all measures, and those by kind of prompt."""
    rows = list(rows_of(stages))
    names = [stage.name for stage in stages]
    parts = [
        Table("Side by side", names, [row for row in rows if not label_by_kind(row.name)]),
        Table("By kind of prompt", names, [row for row in rows if label_by_kind(row.name)]),
    ]
    return [part for part in parts if part.rows]


def rows_of(stages: list[Stage]) -> Iterator[Row]:
    """Yield a row for each measure; the change of a cell is against the first model."""
    measured = [stage.measurements for stage in stages]
    for name in dict.fromkeys(name for rows in reversed(measured) for name in rows):
        rows = [of_model.get(name) for of_model in measured]
        last = next(row for row in reversed(rows) if row)
        cells = [None if row is None else cell(row, is_share(last), change(row, "before")) for row in rows]
        overall = change(last, "before")
        size = (last["n"], is_share(last), clusters_of(last))
        yield Row(name, label(name), last["better"], *size, cells, overall, None, *facts(last))


def sentences(stages: list[Stage]) -> Iterator[str]:
    """Yield for each model what is clearly better and worse than the first one, corrected for all that is compared."""
    first = stages[0].name
    for stage in stages[1:]:
        rows = [row for row in rows_of([stages[0], stage]) if not label_by_kind(row.name) and not row.exploratory]
        changes = [(row, row.overall) for row in rows]
        found = [
            f"clearly {verdict} in {', '.join(named)}"
            for verdict in ("better", "worse")
            if (
                named := [
                    f"{row.label} ({one.text}, {row.basis})" for row, one in changes if one and one.verdict == verdict
                ]
            )
        ]
        judged = [one for _, one in changes if one and one.verdict in {"better", "worse", "unclear"}]
        excluded = sum(one.record["not_worse"] for one in judged)
        losses = f"a loss beyond the margin is excluded for {excluded} of {len(judged)} primary measures"
        yield f"{stage.name} against {first}: {'; '.join([*(found or ['no clear change']), losses])}."


def read_flips(folder: Path, model: str, examples: int) -> Iterator[Flips]:
    """Yield what changed of each measure: the counts, and the largest changes to the better and to the worse."""
    rows = read_lines(folder / model / FLIPPED)
    for measure in dict.fromkeys(row["measure"] for row in rows):
        of_measure = [row for row in rows if row["measure"] == measure]
        counts = Counter(row["gain"] > 0 for row in of_measure)
        some = [
            row
            for worse in (True, False)
            for row in [one for one in of_measure if (one["gain"] < 0) == worse][:examples]
        ]
        yield Flips(model, label(measure), counts[True], counts[False], some)


def table(folder: Path) -> str:
    """Return for each model a table beside the first one, and what changed, as text."""
    stages = read_stages(folder)
    page = io.StringIO()
    console = console_for(page)
    for stage in stages[1:]:
        pair = [stages[0], stage]
        for part in primary_tables(tables(pair)):
            console.print(terminal_table(part), "", sep="\n")
    for sentence in sentences(stages):
        console.print(sentence, markup=False)
    if more := more_measures(tables(stages)):
        console.print("", f"The page has {more}.", sep="\n", style="dim", markup=False)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())
