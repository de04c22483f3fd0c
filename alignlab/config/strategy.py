"""The record of a strategy: how processes share weights, gradients and optimizer, and what follows from that.

A strategy is one file, `alignlab/config/strategies/<name>.py` or a user's own `hardware/<name>.py`, that declares
`STRATEGY`. All other code asks the record, and compares no names.
"""

from dataclasses import dataclass

from alignlab.config import extensions
from alignlab.errors import mistake


@dataclass(frozen=True)
class Strategy:
    """How the processes of a run share one model."""

    several_processes: bool = True
    """Several processes train together."""
    processes_on_cpu: int = 2
    """Processes on a machine without GPUs, where `hardware.processes` is auto."""
    needs_gpu: bool = False
    """It is refused on a CPU."""
    deepspeed_stage: int | None = None
    """The stage of DeepSpeed ZeRO that it needs; None where it does not use DeepSpeed."""
    uses_fsdp: bool = False
    """It needs the settings `hardware.fsdp`."""
    shards_weights: bool = False
    """Each process holds a share of the weights."""
    shards_gradients: bool = False
    """Each process holds a share of the gradients."""
    shards_optimizer: bool = False
    """Each process holds a share of the optimizer's moments."""
    gradient_buckets: bool = False
    """Gradients are held twice, the second time in the buckets that processes exchange."""
    keeps_half_copy: bool = False
    """In bfloat16 the weights are beside the optimizer's float32 copies, and gradients are accumulated in float32."""
    trains_generating_methods: bool = True
    """It trains methods that sample completions while they train."""
    same_checkpoints_as: str | None = None
    """The strategy whose checkpoints it can resume from; None for its own alone."""


def load_strategy(name: str) -> Strategy:
    """Look up the record of a strategy; raises a `Mistake` where its file declares none."""
    module = extensions.load("hardware", name)
    record = getattr(module, "STRATEGY", None)
    if not isinstance(record, Strategy):
        now = "see docs/extending.md for what a kind of hardware declares"
        raise mistake("hardware", f"{module.__name__} declares no STRATEGY", now)
    return record
