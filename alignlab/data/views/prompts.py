"""Distinct prompts: `prompt`."""

from typing import TYPE_CHECKING

from alignlab.config.dataset import DataSettings
from alignlab.data.hh_rlhf import first_positions
from alignlab.data.prepared_columns import drop_details, filter_rows

if TYPE_CHECKING:
    from datasets import Dataset

FORMS = ("prompts", "demonstrations", "good_answers", "pairs", "rankings", "bad_answers")
COMPLETIONS: tuple[str, ...] = ()


def of_rows(rows: "Dataset", _: DataSettings) -> "Dataset":
    """Return the first row of each prompt."""
    rows = drop_details(filter_rows(rows, 0), "completions")
    return rows.select(first_positions([{"prompt": prompt} for prompt in rows["prompt"]]))


def of_pairs(rows: "Dataset", _: DataSettings) -> "Dataset":
    """Return the first row of each prompt."""
    return rows.select(first_positions(rows.to_list())).remove_columns(["chosen", "rejected"])
