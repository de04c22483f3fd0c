"""Several machines: how many there are, which one this is, and the address where they connect.

Each machine is given the same command, and its own number. Machine 0 plans, prepares, measures and reports; the others
join when a stage is trained. The cache has to be on a disk that all of them mount. Under Slurm (`srun`, one task per
machine) the number, the count and the address are read from its environment.
"""

import hmac
import os
import re
import socket
import time
from collections.abc import Iterator
from secrets import token_bytes
from typing import NamedTuple

from alignlab.config.hardware import Hardware
from alignlab.errors import mistake
from alignlab.runtime import distributed
from alignlab.runtime.files import cache_root, locked, partial_of

PORT = 29400  # of a Slurm job, plus the last digits of its number, so that two jobs on a machine use different ports


class Rendezvous(NamedTuple):
    """The number of machines, the number of this one, and host:port of machine 0."""

    nodes: int
    rank: int
    endpoint: str


def resolve(hardware: Hardware) -> Rendezvous:
    """Return the rendezvous by the settings, else by Slurm's environment, else of this machine alone."""
    slurm = os.environ if int(os.environ.get("SLURM_STEP_NUM_NODES", 1)) > 1 else {}
    nodes = hardware.nodes or int(slurm.get("SLURM_STEP_NUM_NODES", 1))
    if nodes == 1 or not hardware.strategy_record.several_processes:
        return Rendezvous(1, 0, "127.0.0.1:0")
    rank = int(slurm.get("SLURM_NODEID", 0)) if hardware.rank is None else hardware.rank
    job = slurm.get("SLURM_JOB_ID", "0")
    endpoint = hardware.rendezvous or slurm_endpoint(slurm.get("SLURM_STEP_NODELIST", ""), job)
    if not re.fullmatch(r"[^:]+:\d+", endpoint):
        now = "give that of machine 0, such as node1:29500"
        raise mistake("hardware.rendezvous", f"{endpoint!r} is not host:port", now)
    return Rendezvous(nodes, rank, endpoint)


def open_ports(hardware: Hardware) -> Iterator[str]:
    """Yield what the plan says of the ports that other machines can reach; nothing where one machine trains."""
    if hardware.strategy_record.several_processes and distributed.started_outside():
        yield "those that the launcher opened; fence them off (docs/hardware.md)"
    elif (met := resolve(hardware)).nodes > 1:
        yield f"machine 0 listens at {met.endpoint} on every interface, and all machines at other ports"
        yield "whoever reaches them can run code: fence them off (docs/hardware.md)"


def run_id(fingerprint: str) -> str:
    """Return the name under which machines meet to train a stage; only a reader of the cache can know it.

    It is derived from a random key in the cache, which all machines mount. Machine 0 makes the key before it listens.
    """
    file = cache_root() / f"rendezvous-{os.getuid()}.key"
    with locked(file):
        if not file.exists():
            partial = partial_of(file)  # a crash or a full disk leaves no key that others can guess
            partial.touch(mode=0o600)
            partial.write_bytes(token_bytes(32))
            partial.replace(file)
    return hmac.digest(file.read_bytes(), fingerprint.encode(), "sha256").hex()


def check_tasks(hardware: Hardware) -> None:
    """Raise a `Mistake` where Slurm started more tasks than runs: one per machine, or one for a single process."""
    tasks, machines = (int(os.environ.get(f"SLURM_STEP_NUM_{name}", 1)) for name in ("TASKS", "NODES"))
    expected = machines if hardware.strategy_record.several_processes else 1
    if tasks != expected and not distributed.started_outside():
        count = f"{machines} machine{'s' * (machines > 1)}"
        what = f"srun has started {tasks} tasks on {count}, and each would be a run of its own"
        now = "use srun --ntasks-per-node=1: alignlab starts the processes of a machine"
        raise mistake("hardware", what, now if expected == machines else "use srun --ntasks=1, or hardware=ddp")


def slurm_endpoint(nodes: str, job: str) -> str:
    """Return the first host of a Slurm node list (`gpu[07-09,12],big1`), with a port that depends on the job."""
    first = re.match(r"([^\[,]+)(?:\[(\d+))?", nodes)
    host = "".join(filter(None, first.groups())) if first else ""
    return f"{host}:{PORT + int(job) % 1000}"


def total_processes(hardware: Hardware) -> int:
    """Return the number of processes that train together, over all machines."""
    if hardware.strategy_record.several_processes and distributed.started_outside():
        return int(os.environ["WORLD_SIZE"])
    return distributed.local_world_size(hardware) * resolve(hardware).nodes


def is_host(hardware: Hardware) -> bool:
    """Return whether this process plans and reports: rank 0 under torchrun, else the process on machine 0."""
    if hardware.strategy_record.several_processes and distributed.started_outside():
        return os.environ["RANK"] == "0"
    return resolve(hardware).rank == 0


def wait_for_host(endpoint: str) -> None:
    """Wait until machine 0 starts to train and accepts connections, without a time limit."""
    host, _, port = endpoint.rpartition(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError:
            time.sleep(1)
        else:
            return
