"""The headline of a run: what it changed, in one sentence that claims no more than the numbers allow.

It speaks of primary measures alone (`evaluation.primary`), and is about the first of them. The p-values behind
"clearly" are corrected for all their differences. Where nothing is worse, the headline says for how many measures a
loss is excluded, and how many prompts (or clusters of rows) would decide the others.
"""

from alignlab.evaluation.decisions import clusters_needed
from alignlab.evaluation.scores import DifferenceRecord
from alignlab.reports.run_results import NO_INTERVAL, Change, Row, Stage, number, side_by_side

UNDECIDED = 2  # undecided measures that the headline names


def headline(stages: list[Stage]) -> str:
    """Return what the run changed, and which part of it is the last stage's own, in one sentence."""
    return "; ".join(findings(stages)) + "."


def findings(stages: list[Stage]) -> list[str]:
    """Return the parts of the headline: what changed, then what became worse or may have."""
    tables = side_by_side(stages)
    rows = {row.name: row for table in tables for row in table.rows}
    if not rows:
        return [f"{stages[-1].name} is done; nothing was measured" if stages else "Nothing was measured"]
    models = tables[0].models
    primary = [row for row in rows.values() if row.place is not None]
    row = min(primary, key=lambda row: row.place or 0, default=next(iter(rows.values())))
    last = next(cell for cell in reversed(row.cells) if cell)
    name = row.label[0].upper() + row.label[1:]
    if row.overall is None or row.cells[0] is None:
        return [f"{name} is {last.text} ({in_words(last.interval)}, {row.basis})"]
    moved = f"went from {row.cells[0].text} to {last.text}"
    if row.overall.verdict == "unclear":
        moved += ", which is no clear change"
    figures = f"({row.overall.text}, {in_words(row.overall.interval)}, {row.basis})"
    return [f"{name} {moved} {figures}{part_of_last(row, models)}", *regressions(primary, models)]


def in_words(interval: str) -> str:
    """Return an interval with its confidence; the text of none is returned unchanged."""
    return interval if interval == NO_INTERVAL else f"95% interval {interval}"


def part_of_last(row: Row, models: list[str]) -> str:
    """Return the last stage's own part of a change; empty where there is one stage."""
    if row.last_stage is None:
        return ""
    verdict = {"unclear": "no clear change"}.get(row.last_stage.verdict, row.last_stage.verdict)
    return f", of which {models[-1]} {row.last_stage.text} ({row.last_stage.interval}, {verdict})"


def regressions(rows: list[Row], models: list[str]) -> list[str]:
    """List the measures that are worse than the base model's and the previous model's, or say what is not worse."""
    since_base = worse([(row, row.overall) for row in rows])
    parts = [f"clearly worse: {since_base}"] if since_base else not_worse(rows)
    if since_previous := worse([(row, row.last_stage) for row in rows]):
        parts.append(f"clearly worse since {models[-2]}: {since_previous}")
    return parts


def worse(changes: list[tuple[Row, Change | None]]) -> str:
    """List the changes that are clearly worse, each with its scorer and number of rows."""
    listed = [(row, change) for row, change in changes if change and change.verdict == "worse"]
    return ", ".join(f"{row.label} {change.text} ({row.basis})" for row, change in listed)


def not_worse(rows: list[Row]) -> list[str]:
    """Say for how many measures a loss beyond the margin is excluded, and what it takes to decide the others."""
    judged = [(row, row.overall.record) for row in rows if row.better != "neither" and row.overall]
    if not any("not_worse" in one for _, one in judged):  # a result of an older version, or nothing to judge
        return ["no measure is clearly worse than the base model's"]
    undecided = [(row, one) for row, one in judged if not one.get("not_worse")]
    excluded = len(judged) - len(undecided)
    parts = [f"a loss of more than the margin is excluded for {excluded} of {len(judged)} primary measures"]
    if undecided:
        shown = [f"{row.label}{smallest_seen(row, one)}" for row, one in undecided[:UNDECIDED]]
        more = [f"and {len(undecided) - UNDECIDED} more"] if undecided[UNDECIDED:] else []
        parts.append(f"undecided: {', '.join([*shown, *more])}")
    return parts


def smallest_seen(row: Row, difference: DifferenceRecord) -> str:
    """Say how small a change of a measure can be seen, and how many prompts or clusters would show the margin."""
    smallest, margin = difference.get("detectable"), difference.get("margin")
    counted = "prompts" if row.clusters == row.n else "clusters"
    if smallest is None and "table" in difference:
        return f" (with {row.clusters:,} {counted} no change can be seen)"
    if not smallest or not margin:
        return ""
    unit = " points" if row.share else ""
    text = f"with {row.clusters:,} {counted} a change under {number(smallest, row.share)}{unit} cannot be seen"
    if smallest > margin:
        needed = clusters_needed(smallest, row.clusters, margin)
        text += f"; {needed:,} would show {number(margin, row.share)}"
    return f" ({text})"
