"""The end of a sweep: its runs, best first, in one table, and the pages that are made from the files in its folder."""

from collections.abc import Iterator
from pathlib import Path

from alignlab.reports.written import try_to_write


def summarise(folder: Path) -> Iterator[str]:
    """Write the table and the pages of a sweep and yield them as lines; the last line is the table's file.

    Where a measure ranks the runs, the table is the ranking; otherwise it holds every measure of every group of runs.
    """
    from alignlab.pipeline.run_folder import write_json
    from alignlab.pipeline.sweep_folder import RANKING, TABLE, read_facts
    from alignlab.reports.reward_hacking_page import write_hacking
    from alignlab.reports.sweep_page import write_page
    from alignlab.reports.sweep_ranking import as_json, markdown, ranking
    from alignlab.reports.sweep_results import sweep_table
    from alignlab.reports.trade_off import write_trade_off
    from alignlab.runtime.files import write_text

    table = sweep_table(folder)
    ranked = ranking(folder)
    if ranked and ranked.ranked:
        table = "\n".join(markdown(ranked))
        write_text(folder / TABLE, table + "\n")
    yield table
    if ranked:
        write_json(folder / RANKING, as_json(ranked))
        command = read_facts(folder)["command"]
        yield from try_to_write("the page of the sweep", lambda: write_page(folder, ranked, command))
    yield from try_to_write("the page on reward hacking", lambda: write_hacking(folder))
    yield from try_to_write("the page on the trade-off", lambda: write_trade_off(folder))
    yield str(folder / TABLE)
