"""Process tasks in several processes of this machine, and yield their results in the order of the tasks.

The workers are forks: they inherit what the main process has loaded, and the seed of Python's hashes. A task may ask
the main process one question, such as which rows it has seen before; questions are answered in the order of the tasks.
The results therefore do not depend on the number of workers, and a single one is no process at all.
"""

import gc
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from alignlab.errors import Explained, failure
from alignlab.runtime.signals import SIGNALS, die_with
from alignlab.runtime.worker_errors import WorkerError, is_out_of_memory

Ask = Callable[[Any], Any]
Work = Callable[[Any, Ask], Any]
FEW_BYTES = 1 << 23  # of rows, about 20,000 of them: processes cost more than they save
PICKLE_LIMIT = 10_000  # frames; pickle takes several for each level of a nested row, of which JSON may have 1,000
# Thresholds of garbage collection: rows hold no cycles. With Python's own, collecting was a sixth of the time that one
# process takes for 40,000 rows, and 6% of that of all processes for 200,000.
RARELY = (50_000, 20, 100)
MOST = 8  # workers; the main process, which reads and writes, keeps no more of them busy


def worker_count(size: int) -> int:
    """Return how many workers share this many bytes of rows: one per core, a single one for few rows or off Linux."""
    forks = sys.platform == "linux" and not multiprocessing.current_process().daemon  # elsewhere forks are not safe
    return min(usable_cores(), MOST) if forks and size >= FEW_BYTES else 1


def usable_cores() -> int:
    """Return the number of cores that this process may use; outside Linux, that of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def no_question(_: Any) -> None:
    """Answer no question: the tasks ask none."""
    raise RuntimeError("this task may ask no question")


@contextmanager
def in_order(work: Work, tasks: Iterable[Any], workers: int, answer: Ask = no_question) -> Iterator[Iterator[Any]]:
    """Yield an iterator of `work(task, ask)` for every task, in order; the workers end with the `with` block.

    An error of a task, or of the iterator of the tasks, is raised when the results of all tasks before it were yielded.
    """
    with rare_collections():
        if workers < 2:
            yield (work(task, answer) for task in tasks)
            return
        with started(work, workers) as processes:
            yield Exchange(processes, tasks, answer).results()


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect garbage rarely inside the block; the workers that are started there do so, too."""
    before = gc.get_threshold()
    gc.set_threshold(*RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)


class Exchange:
    """What the main process hands to the workers and gets back, by the number of the task."""

    def __init__(self, processes: dict[Connection, BaseProcess], tasks: Iterable[Any], answer: Ask) -> None:
        self.processes, self.tasks, self.answer = processes, iter(tasks), answer
        self.idle = list(processes)
        self.busy: dict[Connection, int] = {}
        self.given = 0  # tasks
        self.asked = 0  # tasks, from the first one on, that have asked their question or have ended
        self.questions: dict[int, tuple[Connection, Any]] = {}
        self.ended: dict[int, tuple[str, Any]] = {}
        self.fault: Exception | None = None  # of the iterator of the tasks

    def results(self) -> Iterator[Any]:
        """Yield the results in the order of the tasks."""
        for number in self._numbers():
            while number not in self.ended:
                for connection in wait(list(self.busy)):
                    assert isinstance(connection, Connection)
                    self._receive(connection)
                self._answer_questions(number)
                self._hand_out()
            kind, value = self.ended.pop(number)
            if kind == "error":
                raise value
            yield value
        if self.fault:
            raise self.fault

    def _numbers(self) -> Iterator[int]:
        number = 0
        while self._hand_out() or number < self.given:
            yield number
            number += 1

    def _hand_out(self) -> bool:
        """Give each idle worker a task; return whether there was one."""
        before = self.given
        while self.idle and self.fault is None:
            try:
                task = next(self.tasks)
            except StopIteration:
                break
            except Exception as error:  # raised after the results of the tasks before it
                self.fault = error
                break
            connection = self.idle.pop()
            self._send(connection, task)
            self.busy[connection] = self.given
            self.given += 1
        return self.given > before

    def _receive(self, connection: Connection) -> None:
        try:
            kind, value = connection.recv()
        except (EOFError, OSError):
            raise killed(self.processes[connection]) from None
        if kind == "ask":
            self.questions[self.busy[connection]] = connection, value
        else:
            self.ended[self.busy.pop(connection)] = kind, value
            self.idle.append(connection)

    def _answer_questions(self, first: int) -> None:
        """Answer the questions of the tasks before which no other can still ask; `first` is not yielded yet."""
        self.asked = max(self.asked, first)
        while self.asked in self.questions or self.asked in self.ended:
            if self.asked in self.questions:
                connection, question = self.questions.pop(self.asked)
                self._send(connection, self.answer(question))
            self.asked += 1

    def _send(self, connection: Connection, value: Any) -> None:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(max(limit, PICKLE_LIMIT))
        try:
            connection.send(value)
        except OSError:
            raise killed(self.processes[connection]) from None
        finally:
            sys.setrecursionlimit(limit)


@contextmanager
def started(work: Work, workers: int) -> Iterator[dict[Connection, BaseProcess]]:
    """Start workers; yield them by their connections; kill them at the end."""
    context = multiprocessing.get_context("fork")
    processes: dict[Connection, BaseProcess] = {}
    try:
        for rank in range(workers):
            near, far = context.Pipe()
            arguments = (work, far, [*processes, near], os.getpid())
            process: BaseProcess = context.Process(target=serve, args=arguments, name=f"worker {rank + 1} of {workers}")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which no worker uses
                process.start()
            far.close()
            processes[near] = process
        yield processes
    finally:
        for connection, process in processes.items():
            process.kill()
            process.join()
            connection.close()


def serve(work: Work, connection: Connection, inherited: list[Connection], parent: int) -> None:
    """Process tasks until the main process ends this one; ignore stop signals, which a terminal sends to both."""
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    die_with(parent)
    gc.freeze()  # garbage collection would copy the pages that are shared with the main process
    for other in inherited:
        other.close()

    def ask(question: Any) -> Any:
        connection.send(("ask", question))
        return connection.recv()

    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            message = ("done", work(task, ask))
        except Exception as error:
            message = ("error", portable(error))
        connection.send(message)


def portable(error: Exception) -> Exception:
    """Return an error as the main process raises it: an explained one as it is, a bug with its traceback."""
    if isinstance(error, Explained):
        return error
    if is_out_of_memory(error):
        return MemoryError(str(error))
    return WorkerError("in a worker:\n" + "".join(traceback.format_exception(error)))


def killed(process: BaseProcess) -> Explained:
    """Build the failure that names a worker which has ended without a result."""
    process.join(1)
    code = process.exitcode or 0
    how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"exited with code {code}"
    return failure(f"dataset, {process.name}", how, "check the system's log for the OOM killer; run the command again")
