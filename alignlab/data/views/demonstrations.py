"""Prompts and their best completions: `prompt` and `completion`.

There is a column `finished` if any completion was cut off, and `context` if any earlier answer is not to be learned.
"""

from typing import TYPE_CHECKING

from alignlab.config.dataset import DataSettings
from alignlab.data.prepared_columns import add_finished, completion_column, drop_details, filter_rows, finished_column
from alignlab.errors import mistake

if TYPE_CHECKING:
    from datasets import Dataset

FORMS = ("demonstrations", "good_answers", "pairs", "rankings")
COMPLETIONS = ("completion",)


def of_rows(rows: "Dataset", _: DataSettings) -> "Dataset":
    """Return prompts and their best completions."""
    rows = filter_rows(rows, 1)
    if any(weight != 1 and rated for weight, rated in zip(rows["weight"], rows["rated"], strict=True)):
        what = "its good answers have weights, which demonstrations cannot have"
        raise mistake("dataset", what, "leave them out with dataset.ignore=[weight]")
    finished, context = {"finished": finished_column(rows, 0)}, rows["context"][:]
    view = drop_details(rows, "completions").add_column("completion", completion_column(rows, 0))
    return add_finished(view.add_column("context", context) if any(context) else view, finished)


def of_pairs(rows: "Dataset", _: DataSettings) -> "Dataset":
    """Return prompts and their chosen completions."""
    return rows.remove_columns(["rejected"]).rename_column("chosen", "completion")
