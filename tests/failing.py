"""A reward that fails in one of two processes."""

from alignlab import processes


def second(prompts, completions, finished):
    """Raise in process 1."""
    if processes.rank() == 1:
        raise ValueError("not on process 1")
    return [1.0 for _ in completions]
