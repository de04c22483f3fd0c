"""Prompts with two or more completions, best first: `prompt` and `completions`."""

from typing import TYPE_CHECKING

from alignlab.config.dataset import DataSettings
from alignlab.data.prepared_columns import drop_details, filter_rows

if TYPE_CHECKING:
    from datasets import Dataset

FORMS = ("pairs", "rankings")
COMPLETIONS: tuple[str, ...] = ()


def of_rows(rows: "Dataset", _: DataSettings) -> "Dataset":
    """Return the rows with two or more completions."""
    return drop_details(filter_rows(rows, 2))
