"""Count who wrote the rows that a stage trains on: people or the model.

The rows that people write and label are what aligning a model costs them. Rows that a method generated with the model
carry `model: true`; all other rows are people's.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

ATTACKS = ("harmful", "provocation", "group")  # kinds of prompts that invite harm, in data sets with kinds


def count_authors(rows: "Dataset") -> dict[str, int]:
    """Count the rows written by people, those of them whose prompt is an attack, and the rows written by the model."""
    by_model = rows["model"] if "model" in rows.column_names else [False] * len(rows)
    kinds = rows["kind"] if "kind" in rows.column_names else [None] * len(rows)
    people = [kind for kind, generated in zip(kinds, by_model, strict=True) if not generated]
    attacks = sum(kind in ATTACKS for kind in people)
    return {"people": len(people), "people, on attacks": attacks, "model": len(rows) - len(people)}
