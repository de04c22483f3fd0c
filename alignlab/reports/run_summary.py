"""The end of a run in the terminal: its headline, its primary measures, and where the rest of the results is.

The report holds everything; a screen has room for the measures of `evaluation.primary`.
"""

import io
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.reports.headline import headline
from alignlab.reports.run_report import write_report
from alignlab.reports.run_results import Change, Table, read_stages, side_by_side
from alignlab.reports.written import try_to_write

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as TerminalTable
    from rich.text import Text

WIDTH = 80  # columns of the table where there is no terminal
NARROW = 14  # letters of a measure's name in a line, where a table has no room for the whole
UNLIMITED = 1000  # columns of a table that is measured
COLOURS = {"better": "green", "worse": "red", "changed": "yellow", "unclear": "dim"}


def summarise(folder: Path, in_sweep: bool = False) -> Iterator[str]:
    """Write the report of a run and yield what the terminal shows; the last line is the report's path.

    Of a run in a sweep that is the headline alone, since the sweep ends with a table of all runs.
    """
    yield table(folder, tables=not in_sweep)
    yield from try_to_write("the report", lambda: write_report(folder))


def table(folder: Path, width: int | None = None, tables: bool = True) -> str:
    """Return the headline and the primary measures as text, in `width` columns; in colour on a terminal.

    Without a width it is that of the terminal, or 80. Models between the first and the last are left out where they do
    not fit; their changes are in the report.
    """
    stages, page = read_stages(folder), io.StringIO()
    every = side_by_side(stages) if tables else []
    console = console_for(page, width)
    console.print(headline(stages), style="bold", markup=False)
    for models in primary_tables(every):
        shown = terminal_table(models)
        if width_of(console, shown) > console.width and len(models.models) > 2:
            shown = terminal_table(models, ends_only=True)
        console.print("", shown, sep="\n")
    if every:
        held = ", and ".join(filter(None, [more_measures(every), "every completion"]))
        console.print("", f"The report has {held}:", sep="\n", style="dim", markup=False)
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def console_for(page: io.StringIO, width: int | None = None) -> "Console":
    """Return a console that writes into a page: with the terminal's colours and width, or plain and of 80 columns."""
    from rich.console import Console

    coloured = sys.stdout.isatty()
    return Console(file=page, force_terminal=coloured, width=width or (None if coloured else WIDTH), highlight=False)


def width_of(console: "Console", shown: "TerminalTable") -> int:
    """Return the columns that a table needs."""
    return console.measure(shown, options=console.options.update(width=UNLIMITED)).maximum


def primary_tables(tables: list[Table]) -> list[Table]:
    """Return tables with their primary measures alone."""
    shown = [models._replace(rows=[row for row in models.rows if row.place is not None]) for models in tables]
    return [models for models in shown if models.rows]


def more_measures(tables: list[Table]) -> str:
    """Say how many measures are not primary; empty where all are."""
    count = sum(row.place is None for models in tables for row in models.rows)
    return f"{count} more measure{'s' * (count > 1)}, which are exploratory" if count else ""


def terminal_table(models: Table, ends_only: bool = False) -> "TerminalTable":
    """Build a table for the terminal: each value over its interval; `?` marks a change that is not clear.

    With `ends_only` it has the values of the first model and the last one alone. `worse?` is worse by its own interval,
    but not after the correction for the number of measures.
    """
    from rich import box
    from rich.table import Table as TerminalTable
    from rich.text import Text

    compared = len(models.models) > 1
    shown = TerminalTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("measure", overflow="fold")
    last_stage = [difference(*models.models[-2:])] if len(models.models) > 2 else []
    places = [0, -1] if ends_only else range(len(models.models))
    for column in (
        *(models.models[place] for place in places),
        *last_stage,
        *([difference(models.models[0], models.models[-1])] if compared else []),
    ):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in models.rows:
        written = in_lines(row.name, NARROW) if ends_only else row.name
        clusters = f" in {row.clusters:,} clusters" if row.clusters != row.n else ""
        basis = f"n = {row.n:,}{clusters}" + (f", by {row.scorer}" if row.scorer else "")
        below = [*textwrap.wrap(basis, NARROW if ends_only else UNLIMITED), *filter(None, [row.controls])]
        name = Text.assemble(written, *((f"\n  {line}", "dim") for line in below))
        own = [row.cells[place] for place in places]
        cells = [Text.assemble(cell.text, (f"\n{cell.interval}", "dim")) if cell else Text("") for cell in own]
        changes = [row.last_stage] * len(last_stage) + [row.overall] * compared
        shown.add_row(name, *cells, *map(terminal_change, changes))
    return shown


def difference(first: str, last: str) -> str:
    """Return the name of the change from a model to another, in two lines where these names are long."""
    return f"{last} −{' ' if len(first + last) <= NARROW else chr(10)}{first}"


def in_lines(name: str, width: int) -> str:
    """Break the name of a measure behind / and _, into lines of at most `width` letters where that is possible."""
    lines = [""]
    for part in re.findall(r"[^/_]*[/_]|[^/_]+", name):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def terminal_change(change: Change | None) -> "Text":
    """Format a change over its interval, in the colour of its verdict."""
    from rich.text import Text

    if change is None:
        return Text("")
    words = {"unclear": "?", "changed": ""}.get(change.verdict, change.verdict)
    if change.verdict == "unclear" != change.alone:
        words = f"{change.alone}?"
    head = f"{change.text.removesuffix(' points')} {words}".strip()
    return Text.assemble((head, COLOURS[change.verdict]), (f"\n{change.interval}", "dim"))
