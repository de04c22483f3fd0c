"""Text to continue: conversations as transcripts, and plain text unchanged: `text`."""

from typing import TYPE_CHECKING

from alignlab.config.dataset import DataSettings
from alignlab.data.hh_rlhf import format_transcript
from alignlab.data.prepared_columns import completion_column, drop_details, filter_rows

if TYPE_CHECKING:
    from datasets import Dataset

FORMS = ("text", "demonstrations", "good_answers", "pairs", "rankings")
COMPLETIONS: tuple[str, ...] = ()


def of_rows(rows: "Dataset", _: DataSettings) -> "Dataset":
    """Return each row's best completion, after its prompt if it has one."""
    rows = filter_rows(rows, 1, needs_prompt=False)
    texts = [
        format_transcript(prompt, best) if prompt else best
        for prompt, best in zip(rows["prompt"], completion_column(rows, 0), strict=True)
    ]
    return drop_details(rows, "prompt", "completions").add_column("text", texts)


def of_pairs(rows: "Dataset", _: DataSettings) -> "Dataset":
    """Return each conversation with its chosen completion."""
    from datasets import Dataset

    return Dataset.from_list(
        [{"text": format_transcript(row["prompt"], row["chosen"]), "id": row["id"]} for row in rows.to_list()]
    )
