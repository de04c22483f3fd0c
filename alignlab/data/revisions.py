"""Read the records of critique and revision that `revisions.jsonl` holds."""

from typing import Any


def version(record: dict[str, Any], rounds: int | None = None) -> str:
    """The answer in a record as it stood after so many rounds, or after all."""
    taken = [step["revision"] for step in record["steps"][:rounds] if step["accepted"]]
    return str(taken[-1] if taken else record["answer"])
