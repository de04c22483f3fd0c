"""SFT, DPO and PPO of a model with half a billion random weights on a GPU: tokens a second and peak memory.

    make bench-gpu                                                # on a machine with a GPU
    .venv/bin/python benchmarks/gpu.py model.hidden_size=64 …     # other settings, such as a small model on a CPU

The rows are HH-RLHF's, the numbers those that a run tells at its end.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROWS = {"train": "harmless-base.train.jsonl.gz", "test": "harmless-base.test.dev.jsonl"}
MODEL = (
    "model=scratch", "model.family=qwen2", "model.vocab_size=32000", "model.hidden_size=1024",
    "model.intermediate_size=5632", "model.num_hidden_layers=23", "model.num_attention_heads=16",
    "model.num_key_value_heads=4", "model.max_position_embeddings=2048",
)  # fmt: skip
COMMON = ("method.policy=base", "method.max_length=512", "evaluation=none", "tracking=jsonl")
GPU = ("hardware.device=cuda", "hardware.dtype=bfloat16")
METHODS = {
    "sft": ("method=sft", "method.batch_size=32", "method.max_steps=60"),
    "dpo": ("method=dpo", "method.batch_size=32", "method.max_steps=60"),
    "ppo": (
        "method=ppo", "method.batch_size=128", "method.num_mini_batches=4", "method.total_episodes=1024",
        "method.max_new_tokens=128", "reward=function", "reward.function=shortness:shortness",
        "method.gates.before=off", "method.gates.during=off",
    ),
}  # fmt: skip
REWARD = '''def shortness(prompts, completions, finished):
    """Return 1 for an empty completion, and less for a longer one."""
    return [1 / (1 + len(text) / 100) for text in completions]
'''


class Speed(NamedTuple):
    """Throughput in tokens per second, and GPU memory in GB; None without a GPU."""

    tokens: float
    memory: float | None


def gpu() -> Iterator[str]:
    """Run each method once."""
    data = os.environ.get("ALIGNLAB_DATA")
    if not data:
        yield "Not measured: ALIGNLAB_DATA names no folder of real data."
        return
    more = sys.argv[1:] if Path(sys.argv[0]).name == "gpu.py" else []
    files = [f"dataset.{part}={Path(data) / 'hh-rlhf' / file}" for part, file in ROWS.items()]
    settings = (*MODEL, *COMMON, *GPU, "dataset=hh_rlhf", *more)
    yield f"`python -m alignlab method=… {' '.join(settings)} dataset.train=…/{ROWS['train']}`"
    yield ""
    yield "| method | settings | tokens a second | peak memory |"
    yield "|---|---|--:|--:|"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "shortness.py").write_text(REWARD, encoding="utf-8")
        for method, own in METHODS.items():
            found = speed(method, (*own, *settings, *files), folder)
            memory = "no GPU" if found.memory is None else f"{found.memory:.1f} GB"
            yield f"| {method} | `{' '.join(own[1:])}` | {found.tokens:,.0f} | {memory} |"


def speed(method: str, settings: Sequence[str], folder: Path) -> Speed:
    """Run a method and read its last lines of output."""
    command = [sys.executable, "-m", "alignlab", *settings]
    environment = os.environ | {"ALIGNLAB_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return read(method, done.stderr)


def read(method: str, said: str) -> Speed:
    """Read throughput and memory from the output of a run."""
    lines = [line for line in said.splitlines() if line.startswith(f"{method}:")]
    tokens = [found for line in lines for found in re.findall(r"([\d,]+) tokens a second", line)]
    memory = [found for line in lines for found in re.findall(r"([\d.]+) GB of GPU memory", line)]
    return Speed(float(tokens[-1].replace(",", "")), float(memory[-1]) if memory else None)


if __name__ == "__main__":
    for told in gpu():
        print(told, flush=True)
