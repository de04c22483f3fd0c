"""Measure speed and memory on a GPU, and that bf16 and sharding work, in one script that runs unattended.

    make bench-gpu                                                # on a machine with a GPU; stops after eight minutes
    .venv/bin/python benchmarks/gpu.py --small                    # the same lines with a tiny model on a CPU

Every line is a command of its own. One that fails or runs out of time is reported in the table, and the next one
starts. Rows are HH-RLHF's. Throughput is what a run reports at its end: real tokens from the first log to the last, and
for PPO those of all rollouts over the whole time of training. MFU is 6 x parameters x tokens a second over the device's
peak rate (Chowdhery et al. 2022, appendix B), without the frozen models; PPO has none, since it samples and passes over
a rollout several times. The plan's estimate is what the run printed before it began. On a CPU TRL computes in float32.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from flops import shape_of, weights

HERE = Path(__file__).parent
ROWS = {"train": "harmless-base.train.2000.jsonl", "test": "harmless-base.test.dev.jsonl"}
HALF_A_BILLION = (
    "model.vocab_size=32000", "model.hidden_size=1024", "model.intermediate_size=5632", "model.num_hidden_layers=23",
    "model.num_attention_heads=16", "model.num_key_value_heads=4", "model.max_position_embeddings=2048",
)  # fmt: skip
TINY = (
    "model.vocab_size=600", "model.hidden_size=64", "model.intermediate_size=128", "model.num_hidden_layers=2",
    "model.num_attention_heads=4", "model.num_key_value_heads=2", "model.max_position_embeddings=2048",
)  # fmt: skip
COMMON = ("dataset=hh_rlhf", "evaluation=none", "tracking=jsonl")
UNGATED = ("method.gates.before=off", "method.gates.during=off")
PEAK_RATES = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "4090": 165e12}  # dense bf16, vendor's
REWARD = '''def shortness(prompts, completions, finished):
    """Return 1 for an empty completion, and less for a longer one."""
    return [1 / (1 + len(text) / 100) for text in completions]
'''


class Size(NamedTuple):
    """The amount of work of each line."""

    model: tuple[str, ...]
    hardware: tuple[str, ...]
    steps: int
    batch: int
    length: int
    new_tokens: int
    rollouts: int
    longest: int  # seconds for one line
    seconds: int  # for everything; a line gets what is left of it


class Limits(NamedTuple):
    """The seconds that one line may take, and the end of the time for all, by time.monotonic."""

    longest: int
    end: float


GPU = Size(HALF_A_BILLION, ("hardware.device=cuda", "hardware.dtype=bfloat16"), 24, 32, 512, 128, 3, 150, 470)
SMALL = Size(TINY, ("hardware.device=cpu", "hardware.dtype=bfloat16"), 4, 8, 128, 16, 2, 600, 3600)


class Line(NamedTuple):
    """One line of the table: its name, and the settings of its command."""

    name: str
    settings: tuple[str, ...]


class Outcome(NamedTuple):
    """The seconds, throughput, memory and planned memory (GB) of a command, or why it failed."""

    seconds: float
    tokens: float | None = None
    memory: float | None = None
    planned: float | None = None
    failure: str = ""


def lines(size: Size) -> Iterator[Line]:
    """Yield the commands, in the order of their worth where time runs out."""
    steps = (f"method.batch_size={size.batch}", f"method.max_steps={size.steps}", f"method.max_length={size.length}")
    each = (
        *COMMON,
        "model=scratch",
        "model.family=qwen2",
        *size.model,
        "method.policy=base",
        *steps,
        "method.logging_steps=2",
    )
    ppo = (
        *COMMON, "model=scratch", "model.family=qwen2", *size.model, "method=ppo", "method.policy=base",
        f"method.batch_size={4 * size.batch}", "method.num_mini_batches=4", f"method.max_length={size.length}",
        f"method.total_episodes={4 * size.batch * size.rollouts}", f"method.max_new_tokens={size.new_tokens}",
        "reward=function", "reward.function=shortness:shortness", *UNGATED,
    )  # fmt: skip
    rm = tuple(setting for setting in each if setting != "method.policy=base")
    yield Line("SFT", ("method=sft", *each))
    yield Line("DPO", ("method=dpo", *each))
    yield Line("reward model", ("method=rm", *rm))
    yield Line("PPO, generate", (*ppo, "method.engine=generate"))
    yield Line("PPO, continuous batching", (*ppo, "method.engine=continuous"))
    for strategy in ("zero2", "zero3", "fsdp2"):
        yield Line(
            f"SFT, {strategy}, one process", ("method=sft", *each, f"hardware={strategy}", "hardware.processes=1")
        )
    yield Line("PPO, zero3, one process", (*ppo, "hardware=zero3", "hardware.processes=1"))
    yield Line(
        "main job on pocket",
        (
            "evaluation=quick",
            "tracking=jsonl",
            *(("model=pocket_small", "dataset=pocket_small") if size is SMALL else ()),
        ),
    )


def gpu(small: bool = False) -> Iterator[str]:
    """Run every line and yield a table."""
    data = os.environ.get("ALIGNLAB_DATA")
    if not data:
        yield "Not measured: ALIGNLAB_DATA names no folder of real data."
        return
    size = SMALL if small else GPU
    limits = Limits(size.longest, time.monotonic() + size.seconds)
    files = [f"dataset.{part}={Path(data) / 'hh-rlhf' / file}" for part, file in ROWS.items()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "shortness.py").write_text(REWARD, encoding="utf-8")
        rate, device = peak_rate(small)
        yield f"{device}; settings of every line but the main job's model: `{' '.join((*size.model, *size.hardware))}`"
        yield ""
        yield "| line | seconds | tokens a second | MFU | peak memory | plan's estimate | note |"
        yield "|---|--:|--:|--:|--:|--:|---|"
        for line in lines(size):
            rows = files if "dataset=hh_rlhf" in line.settings else []
            cache = folder / line.name  # of its own, or a line would reuse the stage of another strategy
            yield row(line.name, run((*line.settings, *size.hardware, *rows), folder, cache, limits), size, rate)
        for method in ("sft", "dpo"):
            yield row(f"TRL, {method.upper()}", trl(method, size, folder, files, limits), size, rate)


def row(name: str, outcome: Outcome, size: Size, rate: float | None) -> str:
    """Format an outcome as a line of the table."""
    operations = 6 * weights(shape_of(size.model))
    share = "" if outcome.tokens is None or not rate else f"{operations * outcome.tokens / rate:.0%}"
    cells = (
        name,
        f"{outcome.seconds:.0f}",
        "" if outcome.tokens is None else f"{outcome.tokens:,.0f}",
        share if name.startswith(("SFT", "DPO", "TRL")) else "",
        "" if outcome.memory is None else f"{outcome.memory:.1f} GB",
        "" if outcome.planned is None else f"{outcome.planned:.3g} GB",
        outcome.failure,
    )
    return "| " + " | ".join(cells) + " |"


def run(settings: Sequence[str], folder: Path, cache: Path, limits: Limits) -> Outcome:
    """Run alignlab and read its last lines of output."""
    environment = os.environ | {"ALIGNLAB_CACHE": str(cache)}
    return timed([sys.executable, "-m", "alignlab", *settings], folder, environment, limits)


def trl(method: str, size: Size, folder: Path, files: Sequence[str], limits: Limits) -> Outcome:
    """Run TRL's trainer as it comes on the model and the rows that alignlab prepared."""
    command = [
        sys.executable, str(HERE / "trl_beside.py"), method, *COMMON, "model=scratch", "model.family=qwen2",
        *size.model, *size.hardware, *files, f"method.batch_size={size.batch}", f"method.max_steps={size.steps}",
        f"method.max_length={size.length}", "method.policy=base",
    ]  # fmt: skip
    environment = os.environ | {"ALIGNLAB_CACHE": str(folder / "cache"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return timed(command, folder, environment, limits)


def timed(command: Sequence[str], folder: Path, environment: dict[str, str], limits: Limits) -> Outcome:
    """Run a command for what is left of the time, and read what it printed."""
    started = time.monotonic()
    left = min(limits.longest, limits.end - started)
    if left < 5:
        return Outcome(0, failure="no time left")
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=left)
    except subprocess.TimeoutExpired:
        return Outcome(left, failure=f"stopped after {left:.0f} s")
    output, seconds = done.stderr + done.stdout, time.monotonic() - started
    if done.returncode:
        last = [line for line in output.strip().splitlines() if line.strip()][-1:]
        return Outcome(seconds, failure=f"exit {done.returncode}: {''.join(last)[:160]}")
    return read(output, seconds)


def read(output: str, seconds: float) -> Outcome:
    """Read throughput, memory and the plan's estimate from the output of a run; the last stage's count."""
    tokens = re.findall(r"([\d,]+) tokens a second", output)
    memory = re.findall(r"([\d.]+) GB of GPU memory", output)
    planned = re.findall(r"memory of each:.* = ([\d.]+) (GB|MB)", output)
    return Outcome(
        seconds,
        float(tokens[-1].replace(",", "")) if tokens else None,
        max(map(float, memory)) if memory else None,
        float(planned[-1][0]) / (1 if planned[-1][1] == "GB" else 1000) if planned else None,
    )


def peak_rate(small: bool) -> tuple[float | None, str]:
    """Return the device's peak rate in operations per second, None where it is not listed, and its name."""
    import torch

    if small or not torch.cuda.is_available():
        return None, "CPU"
    name = torch.cuda.get_device_name(0)
    return next((rate for part, rate in PEAK_RATES.items() if part in name), None), name


if __name__ == "__main__":
    for text in gpu("--small" in sys.argv):
        print(text, flush=True)
