"""Where this process stands among those that train one model, and what they tell each other.

Everywhere else there is one process, and all of this is free: `world` is 1, `gathered` gives back what it was given.
Processes stand together only while a stage is trained (`alignlab.pipeline.workers`); the one that measures and reports
is alone.
"""

import gc
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from alignlab.config import strategies
from alignlab.config.hardware import Hardware
from alignlab.errors import mistake

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")
PATIENCE = timedelta(hours=12)  # that one waits for the others: whoever dies is noticed by whoever started it
_standing: list[Hardware] = []  # what the processes stand together for; empty where this one is alone


def rank() -> int:
    """Give this process's number among those that train together; 0 is the one that writes."""
    return int(os.environ["RANK"]) if _standing else 0


def world() -> int:
    """How many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if _standing else 1


def kind() -> str:
    """What a checkpoint of these processes is like: one process and ddp write the same, whatever shards its own."""
    if not _standing:
        return strategies.ALONE
    hardware = _standing[-1]
    return hardware.strategy_record.same_checkpoints_as or hardware.strategy


def is_first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def started_outside() -> bool:
    """Whether torchrun, accelerate or deepspeed has started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def on_this_machine(hardware: Hardware) -> int:
    """How many processes this machine runs: what is set, else one a GPU, and two on a CPU."""
    if not hardware.strategy_record.several_processes:
        return 1
    if started_outside():
        return int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    return hardware.processes or gpus(hardware) or hardware.strategy_record.processes_on_cpu


def gpus(hardware: Hardware) -> int:
    """The GPUs that may be used."""
    if hardware.device == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def check(hardware: Hardware) -> None:
    """Refuse what this machine cannot do, in a sentence."""
    record = hardware.strategy_record
    if record.needs_gpu and not gpus(hardware):
        what = f"{hardware.strategy} needs GPUs; on a CPU it would silently be ddp"
        raise mistake("hardware", what, "use hardware=zero3 or ddp")
    if not record.several_processes and started_outside() and os.environ["WORLD_SIZE"] != "1":
        raise mistake("hardware", f"{os.environ['WORLD_SIZE']} processes were started for one", "use hardware=ddp")
    if started_outside() and hardware.processes not in {None, on_this_machine(hardware)}:
        said = f"{hardware.processes}, but {on_this_machine(hardware)} were started"
        raise mistake("hardware.processes", said, "leave it at auto: whoever starts the processes counts them")
    if gpus(hardware) and on_this_machine(hardware) > gpus(hardware):
        said = f"{on_this_machine(hardware)} processes for {gpus(hardware)} GPUs"
        raise mistake("hardware.processes", said, "use auto, or hardware.device=cpu")
    if hardware.deepspeed:
        from importlib.util import find_spec

        if find_spec("deepspeed") is None:
            raise mistake("hardware", "deepspeed is not installed", "run pip install 'alignlab[deepspeed]'")


@contextmanager
def together(hardware: Hardware) -> Iterator[None]:
    """Stand together with the other processes that the environment names, for as long as a stage is trained."""
    connect(hardware)
    _standing.append(hardware)
    try:
        yield
    finally:
        _standing.pop()
        forget_deepspeed()


def connect(hardware: Hardware) -> None:
    """Open the connection between the processes, unless it is there."""
    import torch
    from torch import distributed

    on_gpus = bool(gpus(hardware))
    if on_gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if on_gpus else "gloo", timeout=PATIENCE)
    if hardware.deepspeed:
        if not on_gpus:
            os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed

        if not on_gpus:  # reductions through shared memory would compile an extension for a minute
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        deepspeed.init_distributed("nccl" if on_gpus else "gloo", auto_mpi_discovery=False, verbose=False)


def forget_deepspeed() -> None:
    """Let models be loaded whole again."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()


def make_room() -> None:
    """Give back the GPU memory that measuring has left behind."""
    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def wait() -> None:
    """Wait until every process is here."""
    if world() > 1:
        from torch import distributed

        distributed.barrier()


def by_first(work: Callable[[], None]) -> None:
    """Let the first process do something, which is done when this returns in any."""
    if is_first():
        work()
    wait()


def gathered(mine: T) -> list[T]:
    """What every process has, in the order of their numbers."""
    if world() == 1:
        return [mine]
    from torch import distributed

    found: list[Any] = [None] * world()
    distributed.all_gather_object(found, mine)
    return found


def any_of(mine: bool) -> bool:
    """Whether it is so for any process."""
    if world() == 1:
        return mine
    import torch
    from torch import distributed

    flag = torch.tensor([float(mine)], device="cuda" if distributed.get_backend() == "nccl" else "cpu")
    distributed.all_reduce(flag, distributed.ReduceOp.MAX)
    return bool(flag.item())


def summed(mine: list[float]) -> list[float]:
    """Sums over all processes."""
    if world() == 1:
        return mine
    import torch
    from torch import distributed

    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    sums = torch.tensor(mine, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return [float(value) for value in sums]


def divided(count: int, work: Callable[[list[int]], Sequence[T]]) -> list[T]:
    """Work on rows 0, 1, … count - 1, each process on its share; all of them get all results, in order."""
    many = world()
    parts = gathered(list(work(list(range(rank(), count, many)))))
    return [parts[row % many][row // many] for row in range(count)]


@contextmanager
def loading() -> Iterator[None]:
    """Let models that learn be sharded as they are loaded, where the hardware shards weights."""
    block = _standing[-1].deepspeed if _standing else None
    if block is None or block.zero_optimization.stage != 3:
        yield
        return
    from transformers.integrations import HfDeepSpeedConfig

    own = HfDeepSpeedConfig(sizes_known(block.block()))  # transformers keeps a weak reference to it
    try:
        yield
    finally:
        del own
        forget_deepspeed()


def sizes_known(block: dict[str, Any]) -> dict[str, Any]:
    """DeepSpeed's block with nothing left open, which is what loading needs of it."""
    zero = {name: value for name, value in block["zero_optimization"].items() if value != "auto"}
    left = {name: value for name, value in block.items() if value != "auto"}
    return left | {"zero_optimization": zero, "bf16": {"enabled": False}, "train_micro_batch_size_per_gpu": 1}


@contextmanager
def whole(*models: "nn.Module | None") -> Iterator[None]:
    """Gather the weights of models that are sharded, on every process, and let them go again."""
    weights = [p for model in models if model is not None for p in model.parameters() if hasattr(p, "ds_id")]
    if not weights:
        yield
        return
    from deepspeed.runtime.zero import GatheredParameters

    with GatheredParameters(weights):
        yield


def unshard(model: "nn.Module") -> None:
    """Put whole weights, in main memory, into the place of FSDP2's shares; the model can be saved, and no more."""
    from torch import nn

    weight: Any
    known: dict[int, nn.Parameter] = {}  # tied weights stay tied
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None and hasattr(weight, "full_tensor"):
                if id(weight) not in known:
                    known[id(weight)] = nn.Parameter(weight.detach().full_tensor().cpu(), requires_grad=False)
                module._parameters[name] = known[id(weight)]


@contextmanager
def unhooked(engine: Any) -> Iterator[None]:
    """Have a DeepSpeed engine's weights whole on every process, to be used by each in its own time.

    DeepSpeed's hooks, by which processes gather a layer together as they come to it, are off meanwhile.
    """
    if not any(hasattr(weight, "ds_id") for weight in engine.parameters()):
        yield
        return
    from trl.models.utils import add_hooks, remove_hooks

    with whole(engine):
        remove_hooks(engine)
        try:
            yield
        finally:
            add_hooks(engine)


@contextmanager
def writing(*weights: Any) -> Iterator[bool]:
    """Gather weights to be changed; yields whether this process is the one whose change counts."""
    sharded = [weight for weight in weights if hasattr(weight, "ds_id")]
    with ExitStack() as stack:
        if sharded:
            from deepspeed.runtime.zero import GatheredParameters

            stack.enter_context(GatheredParameters(sharded, modifier_rank=0))
        yield is_first() or not sharded


def is_error(record: logging.LogRecord) -> bool:
    """Return whether a log record is an error or worse."""
    return record.levelno >= logging.ERROR


def settle(threads: int) -> None:
    """Settle what a process's numbers depend on, and keep the libraries from talking to anybody but the user."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads stall where cores are shared
    import torch
    from transformers.utils.logging import disable_progress_bar

    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # which libraries may import, and which would look for others
    logging.getLogger("DeepSpeed").addFilter(is_error)  # adding it again changes nothing
    torch.set_num_threads(threads)
    for module in ("transformers", "torch.distributed"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
    disable_progress_bar()  # what takes long has a bar of ours
    torch.set_flush_denormal(True)  # denormals make a backward pass many times slower at large margins
