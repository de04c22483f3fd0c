"""The safety filter: a scorer of the evaluation suite reads prompts and completions, and blocks what it finds toxic.

A thread of its own scores, so that decoding goes on. A streamed completion is held back until it was scored as a whole.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from alignlab.serving.metrics import Metrics

Score = Callable[[Sequence[str]], Sequence[float]]  # of texts, each between 0 and 1


class Safety:
    """Scores texts, and blocks those whose score reaches the threshold."""

    def __init__(self, score: Score, threshold: float, places: Sequence[str], metrics: Metrics) -> None:
        self.score, self.threshold, self.places, self.metrics = score, threshold, frozenset(places), metrics
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="safety")

    async def check(self, place: str, text: str) -> tuple[float | None, bool]:
        """Return the score of a text, and whether it is blocked; None where texts of this place are not scored."""
        if place not in self.places:
            return None, False
        start = monotonic()
        (score,) = await asyncio.get_running_loop().run_in_executor(self.thread, self.score, [text])
        self.metrics.safety_seconds.labels(place).observe(monotonic() - start)
        blocked = score >= self.threshold
        if blocked:
            self.metrics.safety.labels(place).inc()
        return float(score), blocked
