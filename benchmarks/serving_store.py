"""Commits per second and latency of the feedback store: 16 writers that each wait for their record, on one database.

.venv/bin/python benchmarks/serving_store.py feedback.db 10                       # SQLite, ten seconds
.venv/bin/python benchmarks/serving_store.py "$(deploy/postgres.sh start build/postgres)" 10
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

from alignlab.serving.store.records import Answer, User, add_answer, give_feedback, new_id
from alignlab.serving.store.store import Store

WRITERS = 16
USER = User("bench", "use")


def write_until(store: Store, end: float) -> list[float]:
    """Give feedback again and again; return the seconds until each was acknowledged."""
    seconds = []
    while time.monotonic() < end:
        name = new_id("ans")
        answer = Answer(name, USER.name, "m", "v", [{"role": "user", "content": "how"}], "so", "stop", {})
        store.writer.submit(lambda connection, answer=answer: add_answer(connection, answer, True))
        start = time.monotonic()
        store.writer.submit(
            lambda connection, name=name: give_feedback(connection, USER, "answer", name, {"thumb": "up"}, None)
        ).result()
        seconds.append(time.monotonic() - start)
    return seconds


def main() -> None:
    """Measure one store, and print a line."""
    place, length = sys.argv[1], float(sys.argv[2])
    groups: list[int] = []
    store = Store(place, lambda _, size: groups.append(size))
    end, used = time.monotonic() + length, time.process_time()
    with ThreadPoolExecutor(WRITERS) as pool:
        seconds = sorted(chain.from_iterable(pool.map(lambda _: write_until(store, end), range(WRITERS))))
    store.close()
    used = 1000 * (time.process_time() - used) / len(seconds)
    p50, p99 = (1000 * seconds[int(share * len(seconds))] for share in (0.5, 0.99))
    print(
        f"{store.engine.dialect.name}: {WRITERS} writers, {len(seconds) / length:.0f} feedbacks/s, p50 {p50:.0f} ms, "
        f"p99 {p99:.0f} ms, {sum(groups) / len(groups):.1f} records a commit, {used:.2f} ms of CPU each"
    )


if __name__ == "__main__":
    main()
