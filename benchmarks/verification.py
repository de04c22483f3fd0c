"""Measure what the verification of stored files costs a stage: the time of hashing beside that of the whole run.

    ALIGNLAB_SMOLLM2=FOLDER ALIGNLAB_DATA=FOLDER .venv/bin/python benchmarks/evidence.py verification

A short stage of SFT on SmolLM2 (538 MB) is trained in a cache of its own, then asked for twice more. Hashing may run in
threads while training continues, so that its CPU time is the most that it can cost.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import alignlab
from alignlab.runtime import manifest

STEPS, ROWS = 6, 8
STAGE = (
    "method=sft", "model=local", "evaluation=none", "tracking=jsonl", "hardware.device=cpu", "dataset=file",
    f"method.max_steps={STEPS}", f"method.batch_size={ROWS}", "method.max_length=192",
)  # fmt: skip
RECIPE = 24 * 16  # rows that the SFT of experiment=smollm2_safety learns, of the same length
TARGET = 0.02


class Timer:
    """Sums up the calls of a function: its CPU time in its thread, and its wall time."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with its times added up."""

        @wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            cpu, wall = time.thread_time(), time.monotonic()
            try:
                return function(*arguments, **options)
            finally:
                self.cpu += time.thread_time() - cpu
                self.wall += time.monotonic() - wall

        return timed


def verification() -> Iterator[str]:
    """Train, reuse with a verification, and reuse; then scale the stage to the recipe's rows."""
    from alignlab.training.trainer import FiniteLoss  # of every trainer

    model, data = os.environ.get("ALIGNLAB_SMOLLM2"), os.environ.get("ALIGNLAB_DATA")
    if not (model and data):
        yield "Not measured: ALIGNLAB_SMOLLM2 or ALIGNLAB_DATA names no folder."
        return
    rows = "sft-instructions/databricks_dolly.csv"
    hash_file, step = manifest.sha256, FiniteLoss.training_step
    yield f"`python -m alignlab {' '.join(STAGE)} dataset.path=…/{rows} model.path=…` (SmolLM2-135M-Instruct, float32):"
    yield ""
    yield "| run | wall time | CPU time | of which steps | hashing, wall | hashing, CPU | share of CPU time |"
    yield "|---|---|---|---|---|---|---|"
    trained: tuple[float, float, float] | None = None
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ALIGNLAB_CACHE"] = f"{folder}/cache"
        settings = alignlab.compose(*STAGE, f"dataset.path={data}/{rows}", f"model.path={model}")
        for run in ("trained", "reused, verified", "reused"):
            hashing, steps = Timer(), Timer()
            manifest.sha256, FiniteLoss.training_step = hashing(hash_file), steps(step)
            cpu, wall = time.process_time(), time.monotonic()
            alignlab.run(settings, Path(folder) / run.replace(", ", "_"))
            cpu, wall = time.process_time() - cpu, time.monotonic() - wall
            trained = trained or (cpu, steps.cpu, hashing.cpu)
            times = f"{wall:.1f} s | {cpu:.1f} s | {steps.cpu:.1f} s | {hashing.wall:.1f} s | {hashing.cpu:.2f} s"
            yield f"| {run} | {times} | {hashing.cpu / cpu:.1%} |"
            print(run, times, flush=True)
    cpu, in_steps, hashed = trained
    length = cpu - in_steps + in_steps / (STEPS * ROWS) * RECIPE
    yield ""
    yield f"The SFT of `experiment=smollm2_safety` learns {RECIPE} such rows instead of {STEPS * ROWS}:"
    yield f"{length:.0f} s of CPU time at this speed with the same hashing, {hashed / length:.1%}."
    yield ""
    for name, seconds in (("short stage", cpu), ("recipe", length)):
        yield f"- {'met' if hashed / seconds <= TARGET else '**not met**'}: at most {TARGET:.0%} of the {name}'s time"
