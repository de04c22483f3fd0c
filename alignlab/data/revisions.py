"""The records of Constitutional AI: critiques and revisions, and AI labels."""

from alignlab.runtime.run_files import RevisionRecord


def revised_answer(record: RevisionRecord, rounds: int | None = None) -> str:
    """Return the answer after the given number of rounds (after all if None)."""
    accepted = [step["revision"] for step in record["steps"][:rounds] if step["accepted"]]
    return accepted[-1] if accepted else record["answer"]
