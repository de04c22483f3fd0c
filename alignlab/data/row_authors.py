"""Who made the rows that a stage learns from: what aligning a model costs people is the rows that they write and label.

Rows that a method has made with the model carry `model: true`; all others are people's, as the data set has them.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasets import Dataset

ATTACKS = ("harmful", "provocation", "group")  # the kinds of prompts that invite harm, where rows have kinds


def makers(rows: "Dataset") -> dict[str, int]:
    """Count the rows that people have made, those of them on attacks, and the rows that the model has made."""
    own = rows["model"] if "model" in rows.column_names else [False] * len(rows)
    kinds = rows["kind"] if "kind" in rows.column_names else [None] * len(rows)
    people = [kind for kind, made in zip(kinds, own, strict=True) if not made]
    attacks = sum(kind in ATTACKS for kind in people)
    return {"people": len(people), "people, on attacks": attacks, "model": len(rows) - len(people)}
