"""Train a stage, in this process or in several workers.

The process that a user starts composes, plans, prepares, measures and reports. Only a stage's `train` runs in workers,
which torch's elastic launcher starts and which receive the bound settings. Where torchrun, accelerate or deepspeed has
started all processes already, the first of them does the other work and the others wait for a stage to train.

Workers send metrics to the first process over a pipe, and write errors into a folder
(`alignlab.runtime.worker_errors`). A worker exits when its parent exits.
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
from alignlab.models import pretrained
from alignlab.pipeline import elastic
from alignlab.runtime import distributed, rendezvous, signals, worker_errors
from alignlab.runtime.file_errors import explained_file_errors
from alignlab.runtime.progress import say
from alignlab.runtime.stage_run import Run, Track
from alignlab.runtime.terminal import make_streams_robust
from alignlab.runtime.worker_errors import OutOfMemory


class Job(NamedTuple):
    """A stage to train, as a worker needs it; `sources` are those of `Run`."""

    config: Config
    settings: Method
    inputs: dict[str, Path]
    folder: Path
    fingerprint: str
    threads: int
    sources: Mapping[str, str] = {}


class Start(NamedTuple):
    """The parent's process id, the folder for error reports, and the pipe for metrics.

    `store` is the file by which the workers of one machine meet; None where machines meet over the network.
    """

    parent: int
    reports: Path
    wire: Connection
    store: Path | None


def train(job: Job, track: Track) -> None:
    """Train a stage; when memory runs out and micro_batch_size is auto, retry with smaller micro-batches."""
    hardware = job.config.hardware
    alone = rendezvous.resolve(hardware).nodes == 1 and not distributed.started_outside()
    may_shrink = hardware.micro_batch_size is None and alone
    while True:
        try:
            return attempt(job, track)
        except OutOfMemory as error:
            smaller = halved(job) if may_shrink else None
            if smaller is None:
                raise
            say(f"{error.faults[0].what}; retrying with micro-batches of {smaller.config.hardware.micro_batch_size}")
            job = smaller


def attempt(job: Job, track: Track) -> None:
    """Train a stage, here or in workers."""
    hardware = job.config.hardware
    if not hardware.strategy_record.several_processes:
        learn(job, track)
    elif distributed.started_outside():
        broadcast(job)
        with distributed.process_group(hardware):
            learn(job, track)
    else:
        launch(job, track)


def learn(job: Job, track: Track) -> None:
    """Train a stage in this process, alone or as one of a process group."""
    from transformers import set_seed

    set_seed(job.config.seed)
    with explained_file_errors(job.folder), worker_errors.explain_out_of_memory():
        run = Run(job.config, job.settings, job.inputs, job.folder, track, sources=job.sources)
        load_method(job.settings.name).train(run)


def check(config: Config) -> None:
    """Raise a `Mistake` where the hardware cannot run the config, or a step does not split evenly over processes."""
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
    """Return the job with micro-batches of at most half the size; None where they hold one row."""
    hardware, settings = job.config.hardware, job.settings
    assert isinstance(settings, Training)
    share = settings.step_size // rendezvous.total_processes(hardware)
    current = hardware.micro_batch_size or share
    sizes = [size for size in range(1, current // 2 + 1) if share % size == 0]
    if not sizes:
        return None
    smaller = hardware.model_copy(update={"micro_batch_size": sizes[-1]})
    return job._replace(config=job.config.model_copy(update={"hardware": smaller}))


def launch(job: Job, track: Track) -> None:
    """Start workers, log their metrics, and raise the first error."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.launcher.api import elastic_launch

    distributed.free_gpu_cache()
    met = rendezvous.resolve(job.config.hardware)
    folder = job.folder / worker_errors.FOLDER.format(met.rank)
    store = folder / "store" if met.nodes == 1 else None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with elastic.contained(store), listening(track) as wire:
            signals.forward_to_workers(folder)
            elastic_launch(elastic.config(job.config.hardware, job.fingerprint, folder), work)(
                job, Start(os.getpid(), folder, wire, store)
            )
    except ChildFailedError as error:
        raise worker_errors.first_error(folder, error) from None
    except RendezvousError as error:
        what = f"the machines could not connect at {met.endpoint} ({' '.join(str(error).split())[:120]})"
        now = "give the same command on all of them, and a port that is free on machine 0"
        raise failure("hardware.rendezvous", what, now) from None
    except SignalException as error:
        raise (KeyboardInterrupt if error.sigval == signal.SIGINT else signals.stopped(error.sigval.name)) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def listening(track: Track) -> Iterator[Connection]:
    """Yield the sending end of a pipe, and log the metrics that arrive at the other end."""
    receiver, sender = Pipe(duplex=False)
    failed: list[Exception] = []

    def listen() -> None:
        try:
            while True:
                metrics, step = receiver.recv()
                if not failed:
                    track.log(metrics, step)
        except EOFError:
            return
        except Exception as error:  # raised below, in the main thread; the workers are stopped
            failed.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield sender
    except BaseException:
        if failed:
            raise failed[0] from None
        raise
    finally:
        sender.close()
        thread.join()
        receiver.close()
    if failed:
        raise failed[0]


class Wire(NamedTuple):
    """A tracker that sends metrics to the first process; `end` is None in all workers but the first."""

    end: Connection | None

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Send metrics."""
        if self.end is not None:
            self.end.send((metrics, step))


def work(job: Job, start: Start) -> None:
    """Train in a worker; on an error, write a report and exit."""
    gc.enable()
    make_streams_robust()
    signals.handle_signals_in_worker(start.reports, start.parent)
    rank = int(os.environ["RANK"])
    worker_errors.record_start(start.reports, rank)
    try:
        configure_worker(job)
        with distributed.process_group(job.config.hardware, start.store):
            learn(job, Wire(start.wire if rank == 0 else None))
    except BaseException as error:
        worker_errors.write_report(start.reports, rank, error)
        os._exit(getattr(error, "exit_code", 1))


def configure_worker(job: Job) -> None:
    """Configure a worker process; the machine's threads are divided among its processes."""
    from tqdm import tqdm

    tqdm.set_lock(RLock())  # tqdm's own lock is shared by processes, and stays locked when one of them is killed
    hardware = job.config.hardware
    threads = hardware.threads or max(1, job.threads // distributed.local_world_size(hardware))
    distributed.configure_process(threads, hardware.matmul)
    pretrained.trust_base(job.config)


def broadcast(job: Job | None) -> None:
    """Send a job to the other processes that torchrun started; None ends them."""
    import torch.distributed

    torch.distributed.broadcast_object_list([job], src=0)


@contextmanager
def others(config: Config) -> Iterator[None]:
    """Connect to the other processes that torchrun started, if any, and end them after the `with` block."""
    if not config.hardware.strategy_record.several_processes or not distributed.started_outside():
        yield
        return
    distributed.connect(config.hardware)
    yield
    broadcast(None)


def follow(config: Config) -> None:
    """Train the jobs that the first process sends, until it sends None."""
    import torch.distributed

    distributed.connect(config.hardware)
    while True:
        received: list[Any] = [None]
        torch.distributed.broadcast_object_list(received, src=0)
        if received[0] is None:
            return
        with distributed.process_group(config.hardware):
            learn(received[0], Wire(None))
