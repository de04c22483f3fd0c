"""Tasks in several processes: order, errors, and workers that end with their task, their pool or the main process."""

import gc
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from alignlab.errors import Failure, failure
from alignlab.runtime.worker_errors import WorkerError
from alignlab.runtime.worker_pool import FEW_BYTES, RARELY, in_order, usable_cores, worker_count

WORKERS = pytest.mark.parametrize("workers", [1, 2, 3])


def slower_first(number, ask):
    time.sleep(0.01 * (number % 3 == 0))
    return number, ask(number)


@WORKERS
def test_results_and_questions_are_in_the_order_of_the_tasks(workers):
    asked = []
    with in_order(slower_first, range(10), workers, lambda number: asked.append(number) or len(asked)) as iterator:
        results = list(iterator)
    assert asked == list(range(10))
    assert results == [(number, number + 1) for number in range(10)]


@WORKERS
def test_garbage_is_collected_rarely_until_the_last_task(workers):
    before = gc.get_threshold()
    with in_order(lambda *_: gc.get_threshold(), range(3), workers) as iterator:
        assert list(iterator) == [RARELY] * 3
    with pytest.raises(ValueError, match="a bug"), in_order(lambda *_: 1 / 0, range(3), workers):
        raise ValueError("a bug")
    assert gc.get_threshold() == before != RARELY


def refuse(number, _):
    if number == 4:
        raise failure("rows.jsonl:4", "is broken")
    if number == 6:
        raise ValueError("a bug")
    return number


def unreadable(numbers):
    yield from numbers
    raise failure("rows.jsonl:9", "is not UTF-8")


@WORKERS
def test_an_error_is_raised_after_all_results_before_it(workers):
    for numbers, first, message in ((range(8), 4, "rows.jsonl:4: is broken"), (range(3), 3, "rows.jsonl:9: is not")):
        results = []
        with pytest.raises(Failure, match=message), in_order(refuse, unreadable(numbers), workers) as iterator:
            results.extend(iterator)
        assert results == list(range(first))
        assert not multiprocessing.active_children()


def test_a_bug_in_a_worker_shows_its_traceback():
    with pytest.raises(WorkerError, match=r"refuse\n(.|\n)*ValueError: a bug"), in_order(refuse, [6], 2) as results:
        list(results)


def signalled(number, _):
    os.kill(os.getpid(), number)
    return number


def test_a_worker_ignores_stop_signals_and_a_killed_one_is_one_sentence():
    stops = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    with in_order(signalled, stops, 2) as results:
        assert list(results) == stops
    told = r"^dataset, worker . of 2: was killed \(SIGKILL\); check .* OOM killer; run"
    with pytest.raises(Failure, match=told), in_order(signalled, [signal.SIGINT, signal.SIGKILL], 2) as results:
        list(results)


class Alarm(Exception):
    """Raised by a signal handler, as a stop is."""


def test_a_stop_of_the_main_process_ends_the_workers(monkeypatch):
    def stop(*_):
        raise Alarm

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(Alarm), in_order(lambda *_: time.sleep(60), [1, 2], 2) as results:
            list(results)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not multiprocessing.active_children()


def is_running(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_no_worker_outlives_a_main_process_that_is_killed():
    context = multiprocessing.get_context("fork")
    near, far = context.Pipe()

    def main():
        with in_order(lambda *_: far.send(os.getpid()) or time.sleep(60), [1, 2], 2) as results:
            list(results)

    process = context.Process(target=main)
    process.start()
    pids = [near.recv(), near.recv()]
    assert all(map(is_running, pids))
    process.kill()
    process.join()
    end = time.monotonic() + 10
    while any(map(is_running, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_running, pids))


def test_few_rows_have_one_worker_and_many_rows_one_per_core(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    assert [worker_count(size) for size in (0, FEW_BYTES - 1, FEW_BYTES)] == [1, 1, 4]


def test_a_system_that_tells_no_affinity_has_its_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert usable_cores() == 6
