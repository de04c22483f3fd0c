"""The records of Constitutional AI: critiques and revisions, and AI labels."""

from typing import Any


def revised_answer(record: dict[str, Any], rounds: int | None = None) -> str:
    """Return the answer after the given number of rounds (after all if None)."""
    accepted = [step["revision"] for step in record["steps"][:rounds] if step["accepted"]]
    return str(accepted[-1] if accepted else record["answer"])
