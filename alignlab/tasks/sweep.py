"""The end of a sweep: one table over its runs, made from the files in its folder."""

from collections.abc import Iterator
from pathlib import Path


def is_sweep(folder: Path) -> bool:
    """Whether a folder holds runs rather than one run."""
    return not (folder / "result.json").exists() and any(folder.glob("*/result.json"))


def summarise(folder: Path) -> Iterator[str]:
    """Write the table of a sweep and give it as lines; the last is the file's path."""
    from alignlab.evaluation.hacking_page import write_hacking
    from alignlab.evaluation.report import sweep_table
    from alignlab.evaluation.trade_off import write_trade_off

    yield sweep_table(folder)
    if page := write_hacking(folder):
        yield str(page)
    if page := write_trade_off(folder):
        yield str(page)
    yield str(folder / "sweep.md")
