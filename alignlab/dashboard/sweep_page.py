"""What the page of a sweep shows: the ranking, the runs, and each measure's mean over seeds by group of settings."""

from collections.abc import Sequence
from typing import Any

from alignlab.dashboard.run_page import NO_ROWS, readable, too_large
from alignlab.dashboard.runs import RUN_FILES, Run
from alignlab.pipeline.run_folder import is_finished
from alignlab.reports.sweep_page import conclusions_of, head_of, rows_of
from alignlab.reports.sweep_ranking import ranking
from alignlab.reports.sweep_results import SweptRun, cells, group_runs, read_run, spreads

NO_GROUPS: dict[str, list[SweptRun]] = {}


def overview(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the facts of a sweep's page; runs that cannot be read are left out of the means."""
    swept = [run for run in (readable(None, read_swept, each) for each in runs) if run]
    groups = readable(NO_GROUPS, group_runs, swept)
    ranked = readable(None, ranking, runs[0].folder.parent) if swept else None
    return {
        "groups": {name: readable(NO_ROWS, cells_of, name, members) for name, members in groups.items()},
        "conclusions": conclusions_of(ranked) if ranked else [],
        "head": head_of(ranked) if ranked else [],
        "rows": rows_of(ranked) if ranked else [],
    }


def cells_of(name: str, runs: list[SweptRun]) -> list[list[str]]:
    """Return the cells of each measure of a group of runs."""
    return [cells(row) for row in spreads(name, runs)]


def read_swept(run: Run) -> SweptRun | None:
    """Read a run of a sweep; None where it has not finished, or has a result or settings that are too large."""
    is_bounded = not any(name.endswith(RUN_FILES) for name in too_large(run))
    return read_run(run.folder) if is_finished(run.folder) and is_bounded else None
