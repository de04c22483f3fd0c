"""The group of processes that train one model: rank, world size and collective operations.

A group exists only while a stage is trained (`alignlab.pipeline.workers`). Outside of it there is one process:
`world_size` is 1, and the collective operations return their input.
"""

import gc
import logging
import os
import socket
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from alignlab.config import strategies
from alignlab.config.hardware import Hardware
from alignlab.errors import mistake

T = TypeVar("T")
TIMEOUT = timedelta(hours=12)  # of a collective operation; the launcher notices a worker that dies much earlier
GPU_FILES = ("nvidia*", "nvhost*", "nvgpu*", "kfd", "dxg")  # in /dev: NVIDIA, its boards, AMD, and WSL
_group: list[Hardware] = []  # the hardware of the current process group; empty where there is none


def rank() -> int:
    """Return the number of this process in its group; process 0 writes files."""
    return int(os.environ["RANK"]) if _group else 0


def world_size() -> int:
    """Return the number of processes in the group."""
    return int(os.environ["WORLD_SIZE"]) if _group else 1


def hardware_of_group() -> Hardware | None:
    """Return the hardware settings of the process group; None where there is none."""
    return _group[-1] if _group else None


def checkpoint_layout() -> str:
    """Return the strategy whose checkpoints this group writes; `single` and `ddp` write the same ones."""
    if not _group:
        return strategies.ALONE
    hardware = _group[-1]
    return hardware.strategy_record.same_checkpoints_as or hardware.strategy


def is_first() -> bool:
    """Return whether this is process 0, which writes files."""
    return rank() == 0


def started_outside() -> bool:
    """Return whether torchrun, accelerate or deepspeed started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def local_world_size(hardware: Hardware) -> int:
    """Return the number of processes on this machine: as set, else one per GPU, or two on a CPU."""
    if not hardware.strategy_record.several_processes:
        return 1
    if started_outside():
        return int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    return hardware.processes or gpu_count(hardware) or hardware.strategy_record.processes_on_cpu


def gpu_count(hardware: Hardware) -> int:
    """Return the number of GPUs that the settings allow."""
    if hardware.device == "cpu" or not has_gpu():
        return 0
    import torch

    return torch.cuda.device_count()


def has_gpu() -> bool:
    """Return whether torch has a GPU; a Linux machine without a GPU's device file is known without importing torch."""
    if "torch" not in sys.modules and sys.platform == "linux":
        if not any(file for name in GPU_FILES for file in Path("/dev").glob(name)):
            return False
    import torch

    return torch.cuda.is_available()


def check(hardware: Hardware) -> None:
    """Raise a `Mistake` where this machine cannot run the hardware settings."""
    record = hardware.strategy_record
    if record.needs_gpu and not gpu_count(hardware):
        what = f"{hardware.strategy} needs a GPU; on a CPU it would behave as ddp"
        raise mistake("hardware", what, "use hardware=zero3 or ddp")
    if not record.several_processes and started_outside() and os.environ["WORLD_SIZE"] != "1":
        what = f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but hardware={hardware.strategy} uses one process"
        raise mistake("hardware", what, "use hardware=ddp")
    if started_outside() and hardware.processes not in {None, local_world_size(hardware)}:
        what = f"{hardware.processes}, but {local_world_size(hardware)} were started"
        raise mistake("hardware.processes", what, "use auto: torchrun sets the number")
    if gpu_count(hardware) and local_world_size(hardware) > gpu_count(hardware):
        what = f"{local_world_size(hardware)} processes for {gpu_count(hardware)} GPUs"
        raise mistake("hardware.processes", what, "use auto, or hardware.device=cpu")
    if hardware.deepspeed:
        from importlib.util import find_spec

        if find_spec("deepspeed") is None:
            raise mistake("hardware", "deepspeed is not installed", "run pip install 'alignlab[deepspeed]'")


@contextmanager
def process_group(hardware: Hardware, store: Path | None = None) -> Iterator[None]:
    """Form a group with the other processes that the environment names, while a stage is trained.

    `store` is the file by which processes of one machine meet; without it they meet at the environment's address.
    """
    connect(hardware, store)
    _group.append(hardware)
    try:
        yield
    finally:
        _group.pop()
        unset_deepspeed_config()


def connect(hardware: Hardware, store: Path | None = None) -> None:
    """Initialise torch.distributed, and DeepSpeed where it is used; does nothing the second time."""
    import torch
    from torch import distributed

    if store is not None:
        listen_on_loopback()

    on_gpus = bool(gpu_count(hardware))
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not distributed.is_initialized():
        met: dict[str, Any] = {}
        if store is not None:
            size = int(os.environ["WORLD_SIZE"])
            by_file = distributed.FileStore(str(store), size)  # type: ignore[attr-defined]
            met = {"store": by_file, "rank": int(os.environ["RANK"]), "world_size": size}
        distributed.init_process_group("nccl" if on_gpus else "gloo", timeout=TIMEOUT, **met)
    if hardware.deepspeed:
        if not on_gpus:
            os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed

        if not on_gpus:  # reductions through shared memory would compile an extension for a minute
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed("nccl" if on_gpus else "gloo", auto_mpi_discovery=False, verbose=False)


def listen_on_loopback() -> None:
    """Make gloo and NCCL listen on this machine's loopback interface only."""
    names = [name for _, name in socket.if_nameindex() if name in {"lo", "lo0"}]  # of Linux and of macOS
    for library in ("GLOO", "NCCL") if names else ():
        os.environ[f"{library}_SOCKET_IFNAME"] = names[0]


def unset_deepspeed_config() -> None:
    """Make transformers load models without partitioning again."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def free_gpu_cache() -> None:
    """Return cached GPU memory to the driver, so that workers can use it."""
    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def barrier() -> None:
    """Wait for every process of the group."""
    if world_size() > 1:
        from torch import distributed

        distributed.barrier()


def run_on_first(work: Callable[[], None]) -> None:
    """Call a function in process 0 and wait for it in every process."""
    if is_first():
        work()
    barrier()


def all_gather(mine: T) -> list[T]:
    """Return the objects of all processes, in the order of their ranks."""
    if world_size() == 1:
        return [mine]
    from torch import distributed

    objects: list[Any] = [None] * world_size()
    distributed.all_gather_object(objects, mine)
    return objects


def any_process(mine: bool) -> bool:
    """Return whether the flag is true in any process."""
    if world_size() == 1:
        return mine
    import torch
    from torch import distributed

    flag = torch.tensor([float(mine)], device="cuda" if distributed.get_backend() == "nccl" else "cpu")
    distributed.all_reduce(flag, distributed.ReduceOp.MAX)
    return bool(flag.item())


def all_reduce_sum(mine: list[float]) -> list[float]:
    """Return the sums over all processes, element by element."""
    if world_size() == 1:
        return mine
    import torch
    from torch import distributed

    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    sums = torch.tensor(mine, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return [float(value) for value in sums]


def map_rows(count: int, work: Callable[[list[int]], Sequence[T]]) -> list[T]:
    """Call `work` on row indices 0 … count - 1, split over the processes; return all results, in order, in each."""
    size = world_size()
    shares = all_gather(list(work(list(range(rank(), count, size)))))
    return [shares[row % size][row // size] for row in range(count)]


def is_error(record: logging.LogRecord) -> bool:
    """Return whether a log record is an error or worse."""
    return record.levelno >= logging.ERROR


def set_environment() -> None:
    """Set the variables that libraries read when they are imported: no telemetry, no progress bars, no spinning."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads stall where cores are shared


def configure_process(threads: int, products: str = "auto") -> None:
    """Set the CPU threads and float settings that decide numbers; switch off telemetry and libraries' progress bars.

    `products` is `hardware.matmul`.
    """
    set_environment()
    import torch
    from transformers.utils.logging import disable_progress_bar

    from alignlab.runtime import heap, matmul

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # deepspeed searches for an accelerator otherwise
    logging.getLogger("DeepSpeed").addFilter(is_error)  # adding it again changes nothing
    torch.set_num_threads(threads)
    matmul.use(products)
    heap.keep_freed()
    for module in ("transformers", "torch.distributed"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
    disable_progress_bar()  # `alignlab.runtime.progress` shows progress
    torch.set_flush_denormal(True)  # denormals make a backward pass many times slower at large margins
