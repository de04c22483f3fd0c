"""Several machines: how many, which of them this is, and where they meet.

Each machine is given the same command, and its own number. Machine 0 plans, prepares, measures and reports; the others
join when a stage is trained. The cache has to lie on a disk that all of them see. Under Slurm (`srun`, one task a
machine) number, count and meeting place come from its environment.
"""

import os
import re
import socket
import time
from typing import NamedTuple

from alignlab.config.hardware import Hardware
from alignlab.errors import mistake
from alignlab.runtime import distributed

PORT = 29400  # of a Slurm job, plus the last digits of its number, so that two jobs on a machine do not meet


class Meeting(NamedTuple):
    """How many machines there are, which one this is, and host:port of machine 0."""

    nodes: int
    rank: int
    place: str


def meeting(hardware: Hardware) -> Meeting:
    """The settings where they are given, else what Slurm says, else this machine alone."""
    slurm = os.environ if int(os.environ.get("SLURM_STEP_NUM_NODES", 1)) > 1 else {}
    nodes = hardware.nodes or int(slurm.get("SLURM_STEP_NUM_NODES", 1))
    if nodes == 1 or not hardware.strategy_record.several_processes:
        return Meeting(1, 0, "127.0.0.1:0")
    rank = int(slurm.get("SLURM_NODEID", 0)) if hardware.rank is None else hardware.rank
    place = hardware.rendezvous or slurm_place(slurm.get("SLURM_STEP_NODELIST", ""), slurm.get("SLURM_JOB_ID", "0"))
    if not re.fullmatch(r"[^:]+:\d+", place):
        raise mistake(
            "hardware.rendezvous", f"{place!r} is not host:port", "give that of machine 0, such as node1:29500"
        )
    return Meeting(nodes, rank, place)


def check_tasks(hardware: Hardware) -> None:
    """Refuse more tasks of Slurm than machines (or than one, for one process): each would be a run of its own."""
    tasks, machines = (int(os.environ.get(f"SLURM_STEP_NUM_{name}", 1)) for name in ("TASKS", "NODES"))
    expected = machines if hardware.strategy_record.several_processes else 1
    if tasks != expected and not distributed.started_outside():
        said = (
            f"srun has started {tasks} tasks on {machines} machine{'s' * (machines > 1)}, each of which would be a run"
        )
        now = "use srun --ntasks-per-node=1: processes are started from there"
        raise mistake("hardware", said, now if expected == machines else "use srun --ntasks=1, or hardware=ddp")


def slurm_place(nodes: str, job: str) -> str:
    """The first machine of a Slurm node list (`gpu[07-09,12],big1`), with a port of the job's own."""
    first = re.match(r"([^\[,]+)(?:\[(\d+))?", nodes)
    host = "".join(filter(None, first.groups())) if first else ""
    return f"{host}:{PORT + int(job) % 1000}"


def processes_in_all(hardware: Hardware) -> int:
    """How many processes train together, over all machines."""
    if hardware.strategy_record.several_processes and distributed.started_outside():
        return int(os.environ["WORLD_SIZE"])
    return distributed.on_this_machine(hardware) * meeting(hardware).nodes


def is_host(hardware: Hardware) -> bool:
    """Whether this process plans and reports: on machine 0, and the first where others were started beside it."""
    if hardware.strategy_record.several_processes and distributed.started_outside():
        return os.environ["RANK"] == "0"
    return meeting(hardware).rank == 0


def wait_for_host(place: str) -> None:
    """Wait until machine 0 has come so far that it trains; Slurm, or whoever started this, ends it otherwise."""
    host, _, port = place.rpartition(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError:
            time.sleep(1)
        else:
            return
