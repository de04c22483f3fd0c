"""The end of a sweep: its runs, best first, in one table and one drawing, made from the files in its folder."""

from collections.abc import Iterator
from pathlib import Path


def summarise(folder: Path) -> Iterator[str]:
    """Write the table and the page of a sweep and give it as lines; the last is the table's file.

    Where a measure ranks the runs, `sweep.md` is the ranking; otherwise it holds every measure of every group of runs.
    """
    from alignlab.pipeline.sweep_folder import RANKING, TABLE, read_facts
    from alignlab.reports.reward_hacking_page import write_hacking
    from alignlab.reports.run_report import sweep_table
    from alignlab.reports.sweep_page import write_page
    from alignlab.reports.sweep_ranking import as_json, ranking, told
    from alignlab.reports.trade_off import write_trade_off
    from alignlab.runtime.files import write_text

    table = sweep_table(folder)
    found = ranking(folder)
    if found and found.ranked:
        table = "\n".join(told(found))
        write_text(folder / TABLE, table + "\n")
    yield table
    if found:
        write_text(folder / RANKING, as_json(found))
        yield str(write_page(folder, found, read_facts(folder)["command"]))
    if page := write_hacking(folder):
        yield str(page)
    if page := write_trade_off(folder):
        yield str(page)
    yield str(folder / TABLE)
