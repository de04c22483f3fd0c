"""A stage's training, in this process or in several.

The process that a user starts composes, plans, prepares, measures and reports. Only a stage's `train` runs in workers,
which torch's elastic launcher starts and which are handed the bound settings. Where torchrun, accelerate or deepspeed
has started all processes already, the first of them does that work and the others wait for a stage to train.

Workers tell the first process what to log over a pipe, and what went wrong in a folder
(`alignlab.runtime.worker_errors`). None outlives its parent, however that ends.
"""

import gc
import os
import shutil
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from threading import RLock, Thread
from typing import Any, NamedTuple

from alignlab.config.method import Method, Training
from alignlab.config.method_protocol import load_method
from alignlab.config.schema import Config
from alignlab.errors import failure, mistake
from alignlab.runtime import distributed, rendezvous, signals, worker_errors
from alignlab.runtime.progress import say
from alignlab.runtime.stage_run import Run, Track
from alignlab.runtime.worker_errors import OutOfMemory


class Job(NamedTuple):
    """A stage to train, as a worker needs it: `mark` is its fingerprint, `sources` are those of `Run`."""

    config: Config
    settings: Method
    inputs: dict[str, Path]
    folder: Path
    mark: str
    threads: int
    sources: Mapping[str, str] = {}


class Start(NamedTuple):
    """What a worker is told besides its job: who started it, where to say what goes wrong, and whom to tell."""

    parent: int
    reports: Path
    wire: Connection


def train(job: Job, track: Track) -> None:
    """Train a stage on the hardware of its config; with fewer rows at once, again and again, where memory runs out."""
    hardware = job.config.hardware
    alone = rendezvous.resolve(hardware).nodes == 1 and not distributed.started_outside()
    is_open = hardware.micro_batch_size is None and alone
    while True:
        try:
            return attempt(job, track)
        except OutOfMemory as error:
            smaller = halved(job) if is_open else None
            if smaller is None:
                raise
            say(f"{error.faults[0].what}; going on with {smaller.config.hardware.micro_batch_size} rows at once")
            job = smaller


def attempt(job: Job, track: Track) -> None:
    """Train a stage, here or in workers."""
    hardware = job.config.hardware
    if not hardware.strategy_record.several_processes:
        learn(job, track)
    elif distributed.started_outside():
        tell(job)
        with distributed.process_group(hardware):
            learn(job, track)
    else:
        launch(job, track)


def learn(job: Job, track: Track) -> None:
    """Train a stage in this process, alone or as one of those that stand together."""
    from transformers import set_seed

    set_seed(job.config.seed)
    with worker_errors.explain_out_of_memory():
        load_method(job.settings.name).train(
            Run(job.config, job.settings, job.inputs, job.folder, track, sources=job.sources)
        )


def check(config: Config) -> None:
    """Refuse what the hardware cannot do, and steps that do not split evenly over its processes."""
    distributed.check(config.hardware)
    rendezvous.check_tasks(config.hardware)
    strategy, method = config.hardware.strategy, config.method.name
    if load_method(method).generates and not config.hardware.strategy_record.trains_generating_methods:
        raise mistake("hardware", f"{method} does not run under {strategy}", "use hardware=zero3")
    many = rendezvous.total_processes(config.hardware)
    for place, settings in (("method", config.method), *((f"stages.{n}", s) for n, s in config.stages.items())):
        if isinstance(settings, Training) and settings.step_size % many:
            what = f"a step of {settings.step_size} does not split over {many} processes"
            raise mistake(f"{place}.batch_size", what, f"use a multiple of {many}, or other hardware.processes")


def halved(job: Job) -> Job | None:
    """The same job with half the rows at once, where there are two."""
    hardware, settings = job.config.hardware, job.settings
    assert isinstance(settings, Training)
    share = settings.step_size // rendezvous.total_processes(hardware)
    now = hardware.micro_batch_size or share
    less = [size for size in range(1, now // 2 + 1) if share % size == 0]
    if not less:
        return None
    smaller = hardware.model_copy(update={"micro_batch_size": less[-1]})
    return job._replace(config=job.config.model_copy(update={"hardware": smaller}))


def launch(job: Job, track: Track) -> None:
    """Start workers, log what they tell, and raise what went wrong first."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    hardware = job.config.hardware
    distributed.free_gpu_cache()
    met = rendezvous.resolve(hardware)
    folder = job.folder / worker_errors.FOLDER.format(met.rank)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    settings = LaunchConfig(
        min_nodes=met.nodes,
        max_nodes=met.nodes,
        nproc_per_node=distributed.local_world_size(hardware),
        run_id=job.mark,
        rdzv_backend="c10d",
        rdzv_endpoint=met.endpoint,
        rdzv_configs={"is_host": met.rank == 0} if met.nodes > 1 else {},
        local_addr="127.0.0.1" if met.nodes == 1 else None,
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(str(folder / "logs")),
        signals_to_handle="SIGINT,SIGHUP,SIGQUIT",  # its answer to SIGTERM leaves 30 seconds for a checkpoint
    )
    try:
        with quiet_launcher(), own_signals(), listening(track) as wire:
            signals.forward_to_workers(folder)
            elastic_launch(settings, work)(job, Start(os.getpid(), folder, wire))
    except ChildFailedError as error:
        raise worker_errors.first_error(folder, error) from None
    except RendezvousError as error:
        what = f"the machines did not meet at {met.endpoint} ({' '.join(str(error).split())[:120]})"
        now = "give the same command on all of them, and a port that is free on machine 0"
        raise failure("hardware.rendezvous", what, now) from None
    except SignalException as error:
        raise (KeyboardInterrupt if error.sigval == signal.SIGINT else signals.stopped(error.sigval.name)) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


LAUNCHERS = ("torch.distributed.elastic", "torch.distributed.launcher", "torch.multiprocessing")


@contextmanager
def quiet_launcher() -> Iterator[None]:
    """Keep the launcher's own log to itself: what it says of a failure, we say shorter."""
    import logging

    names = [name for name in logging.root.manager.loggerDict if name.startswith(LAUNCHERS)]  # each has its own level
    logs = [logging.getLogger(name) for name in names]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


@contextmanager
def own_signals() -> Iterator[None]:
    """Put back the answers to signals that the launcher sets."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, answer in before.items():
            signal.signal(number, answer)


@contextmanager
def listening(track: Track) -> Iterator[Connection]:
    """Give the end of a pipe, and log what comes out of the other."""
    hears, tells = Pipe(duplex=False)
    failed: list[Exception] = []

    def listen() -> None:
        try:
            while True:
                metrics, step = hears.recv()
                if not failed:
                    track.log(metrics, step)
        except EOFError:
            return
        except Exception as error:  # raised where the user hears of it; the workers need not go on
            failed.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield tells
    except BaseException:
        if failed:
            raise failed[0] from None
        raise
    finally:
        tells.close()
        thread.join()
        hears.close()
    if failed:
        raise failed[0]


class Wire(NamedTuple):
    """A tracker that tells the first process; the other workers' are told to nobody."""

    end: Connection | None

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Tell."""
        if self.end is not None:
            self.end.send((metrics, step))


def work(job: Job, start: Start) -> None:
    """Train in a worker; what goes wrong is written down, and ends the process at once."""
    gc.enable()
    signals.handle_signals_in_worker(start.reports, start.parent)
    rank = int(os.environ["RANK"])
    worker_errors.record_start(start.reports, rank)
    try:
        settle(job)
        with distributed.process_group(job.config.hardware):
            learn(job, Wire(start.wire if rank == 0 else None))
    except BaseException as error:
        worker_errors.write_report(start.reports, rank, error)
        os._exit(getattr(error, "exit_code", 1))


def settle(job: Job) -> None:
    """Settle what the numbers of a worker depend on; the machine's threads are parted among its processes."""
    from tqdm import tqdm

    tqdm.set_lock(RLock())  # its own is shared by processes, and is missed when one of them is killed
    given = job.config.hardware.threads
    distributed.configure_process(given or max(1, job.threads // distributed.local_world_size(job.config.hardware)))


def tell(job: Job | None) -> None:
    """Tell the processes that were started beside this one what to train; None ends them."""
    import torch.distributed

    torch.distributed.broadcast_object_list([job], src=0)


@contextmanager
def others(config: Config) -> Iterator[None]:
    """Have the processes that were started beside this one at hand, if there are any."""
    if not config.hardware.strategy_record.several_processes or not distributed.started_outside():
        yield
        return
    distributed.connect(config.hardware)
    yield
    tell(None)


def follow(config: Config) -> None:
    """Train what the first process says, until it says that there is nothing more."""
    import torch.distributed

    distributed.connect(config.hardware)
    while True:
        heard: list[Any] = [None]
        torch.distributed.broadcast_object_list(heard, src=0)
        if heard[0] is None:
            return
        with distributed.process_group(config.hardware):
            learn(heard[0], Wire(None))
