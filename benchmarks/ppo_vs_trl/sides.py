"""What both sides are asked and tell; imported by both, so it needs the standard library alone."""

from pathlib import Path
from typing import Any, NamedTuple


class Asked(NamedTuple):
    """One run: what it starts from, and its settings; `ends` says whether completions may come to an end."""

    policy: str
    judge: str
    prompts: str
    rows: str | None
    value: str = "separate"
    batch_size: int = 32
    mini_batches: int = 1
    epochs: int = 4
    updates: int = 4
    max_new_tokens: int = 48
    learning_rate: float = 3e-6
    kl_coef: float = 0.05
    vf_coef: float = 0.1
    missing_eos_penalty: float = 0.0
    ends: bool = False
    seed: int = 0
    threads: int = 2
    matmul: str = "auto"
    more: tuple[str, ...] = ()


class Told(NamedTuple):
    """What a run measured: a mark after each update (`at`, and seconds by part so far), peak memory, and curves."""

    episodes: int
    marks: list[dict[str, Any]]
    peak: int
    rows: list[dict[str, float]]


def peak() -> int:
    """The most memory that this process has held (VmHWM), in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
