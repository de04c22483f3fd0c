"""Rewards that fail, or take long, in one of two processes."""

import time
from pathlib import Path

from alignlab.runtime import distributed


def second(prompts, completions, finished):
    """Raise in process 1."""
    if distributed.rank() == 1:
        raise ValueError("not on process 1")
    return [1.0 for _ in completions]


def slow(prompts, completions, finished):
    """Take longer, in process 1 and once, than torch's launcher has patience; a file says when."""
    if distributed.rank() == 1 and not Path("slow").exists():
        Path("slow").touch()
        time.sleep(35)
    return [float(len(text)) for text in completions]
