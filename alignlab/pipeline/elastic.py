"""Torch's elastic launcher: its configuration, how its workers end, and what it must not change in its caller."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import spawn
from pathlib import Path
from secrets import token_hex
from typing import Any

from alignlab.config.hardware import Hardware
from alignlab.runtime import distributed, rendezvous

NO_SHARED_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
# prctl(PR_SET_PDEATHSIG, SIGKILL), and the exit of a worker whose parent was killed before that call
DIE_WITH_PARENT = "import ctypes, os; ctypes.CDLL(None).prctl(1, 9); os.getppid() == {parent} or os._exit(1)"
LAUNCHERS = ("torch.distributed.elastic", "torch.distributed.launcher", "torch.multiprocessing")


def config(hardware: Hardware, fingerprint: str, folder: Path) -> Any:
    """Return the configuration of torch's elastic launcher for a stage; `folder` is the workers' folder."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    met = rendezvous.resolve(hardware)
    several = met.nodes > 1
    return LaunchConfig(
        min_nodes=met.nodes,
        max_nodes=met.nodes,
        nproc_per_node=distributed.local_world_size(hardware),
        run_id=rendezvous.run_id(fingerprint) if several else token_hex(),
        rdzv_backend="c10d",
        rdzv_endpoint=met.endpoint if several else str(folder / "rendezvous"),
        rdzv_configs={"is_host": met.rank == 0} if several else {"store_type": "file"},
        local_addr=None if several else "127.0.0.1",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(str(folder / "logs")),
        signals_to_handle="SIGQUIT",  # its handlers of the others would leave 30 seconds for a checkpoint
    )


@contextmanager
def contained(store: Path | None) -> Iterator[None]:
    """Silence the launcher, restore the signal handlers it replaces, and keep it from opening a port.

    `store` is the file by which the workers of one machine meet; None where machines meet over the network.
    """
    with quiet_launcher(), restored_signals(), own_store(store), workers_die_with_parent():
        yield


@contextmanager
def workers_die_with_parent() -> Iterator[None]:
    """Make the kernel kill each worker with this process, also while the worker still imports torch (Linux).

    A worker imports torch before it calls any function of alignlab, which takes seconds on a busy machine.
    """
    command_line = spawn.get_command_line

    def bound(**pipes: Any) -> list[str]:
        *start, program, fork = command_line(**pipes)
        return [*start, f"{DIE_WITH_PARENT.format(parent=os.getpid())}; {program}", fork]

    spawn.get_command_line = bound if sys.platform == "linux" else command_line
    try:
        yield
    finally:
        spawn.get_command_line = command_line


@contextmanager
def own_store(store: Path | None) -> Iterator[None]:
    """Keep the launcher from opening a port for workers that meet by a file; it listens on every interface."""
    if store is not None:
        os.environ[NO_SHARED_STORE] = "1"
    try:
        yield
    finally:
        os.environ.pop(NO_SHARED_STORE, None)


@contextmanager
def quiet_launcher() -> Iterator[None]:
    """Silence the launcher's log, since failures are reported by `worker_errors`."""
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
def restored_signals() -> Iterator[None]:
    """Restore the signal handlers that the launcher replaces."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
