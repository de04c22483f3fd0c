"""Train SmolLM2-135M-Instruct for a few steps of every method in bfloat16 on a CPU; kill each run and resume it.

    .venv/bin/python benchmarks/real_model.py           # or some names, such as "sft, LoRA"; about fifteen CPU minutes
    .venv/bin/python benchmarks/evidence.py real_model  # writes the table of the runs that are recorded

It needs `ALIGNLAB_DATA` and `make smollm2`. A run is killed (SIGKILL) as soon as its last stage has saved a checkpoint;
the same command has to resume from it.
"""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROWS = "hh-rlhf/harmless-base.train.2000.jsonl"
LONGEST = 260  # characters of a pair that is used
COMMON = (
    "model=smollm2_135m_instruct", "dataset=file", "dataset.path=rows.jsonl", "dataset.label_pairs=true",
    "dataset.validation=0.1", "dataset.test=0.1", "evaluation=none", "tracking=jsonl", "hardware.device=cpu",
    "hardware.dtype=bfloat16", "method.batch_size=2", "method.max_length=128", "method.save_steps=1",
    "method.logging_steps=1",
)  # fmt: skip
STEPS = ("method.policy=base", "method.max_steps=3")
ROLLOUTS = (
    "method.policy=base", "method.max_new_tokens=8", "method.num_ppo_epochs=2", "method.num_mini_batches=1",
    "reward=function", "reward.function=words:words", "method.gates.min_finished=0", "method.gates.during=off",
)  # fmt: skip
ANSWERS = ("prompts=8", "red_team=null", "helpful=8", "max_new_tokens=64")
REVISED = ("rounds=1", "accept=all", "off_topic=100", "max_steps=2", "batch_size=2", "max_length=192")
LORA = ("model/adapter=lora",)
RUNS: dict[str, tuple[str, ...]] = {
    "sft, LoRA": ("method=sft", *STEPS, *LORA),
    "sft, full": ("method=sft", *STEPS),
    "rm, LoRA": ("method=rm", *STEPS, *LORA),
    "dpo, LoRA": ("method=dpo", *STEPS, *LORA),
    "kto, LoRA": ("method=kto", *STEPS, *LORA),
    "cost, LoRA": ("method=cost", *STEPS, *LORA),
    "ppo, LoRA": ("method=ppo", *ROLLOUTS, "method.total_episodes=6", *LORA),
    "ppo, full": ("method=ppo", *ROLLOUTS, "method.total_episodes=6"),
    "grpo, LoRA": (
        "method=grpo", *ROLLOUTS, "method.total_episodes=12", "method.group_size=2", "method.batch_size=4", *LORA,
    ),
    "cai, LoRA": (
        "method=cai", "judge=choice", "method.max_steps=3", "method.max_length=192",
        *(f"method.{setting}" for setting in ANSWERS),
        *(f"stages.cai_sft.{setting}" for setting in (*ANSWERS, *REVISED)), *LORA,
    ),
}  # fmt: skip
RECORD = Path(__file__).parent / "parts" / "real_model.json"
REWARD = '''def words(prompts, completions, finished):
    """Return the share of letters in each completion."""
    return [sum(map(str.isalpha, text)) / max(1, len(text)) for text in completions]
'''


class Outcome(NamedTuple):
    """The outcome of a killed and resumed run."""

    code: int
    killed: int  # the last optimizer step that was saved at the kill
    resumed: int  # the step from which the same command continued
    ratio: float | None  # the first importance ratio farthest from 1, over all rollouts
    bfloat16: float  # the least share of multiply-adds in bfloat16 over the phases of the last stage
    cpu: float  # seconds, of both commands
    failure: str


def real_model() -> Iterator[str]:
    """Return the table of the runs that were recorded."""
    outcomes = {name: Outcome(*fields) for name, fields in read_record().items()}
    yield "`benchmarks/real_model.py`: SmolLM2-135M-Instruct on pairs of HH-RLHF, three steps (PPO and GRPO: three"
    yield "rollouts) of two or four rows, in bfloat16 on a CPU. Each run is killed (SIGKILL) when its last stage has"
    yield "saved a checkpoint, and the same command is given again. `bfloat16` is the share of multiply-adds that were"
    yield "measured in that dtype, in the phase with the least; adapters and value heads compute in float32."
    yield ""
    yield "| method | exit code | bfloat16 | first ratio | saved at the kill | resumed from | s of CPU |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for name, outcome in outcomes.items():
        ratio = "" if outcome.ratio is None else f"{outcome.ratio:.4f}"
        end = str(outcome.code) + (f": {outcome.failure}" if outcome.failure else "")
        cells = (name, end, f"{outcome.bfloat16:.0%}", ratio, f"step {outcome.killed}", f"step {outcome.resumed}")
        yield f"| {' | '.join(cells)} | {outcome.cpu:.0f} |"
    ended = sum(outcome.code == 0 for outcome in outcomes.values())
    again = sum(0 < outcome.killed <= outcome.resumed for outcome in outcomes.values())
    ratios = [abs(outcome.ratio - 1) for outcome in outcomes.values() if outcome.ratio is not None]
    yield ""
    yield f"- {verdict(ended == again == len(RUNS))}: {ended} of {len(RUNS)} runs end, {again} after resuming"
    is_within = max(ratios, default=1) <= BOUND
    yield f"- {verdict(is_within)}: first ratios within {BOUND} of 1, the gate's bound in bfloat16"


BOUND = 0.4  # max_first_ratio of conf/method/_gates.yaml


def verdict(is_met: bool) -> str:
    """Return the words for an aim that is met or not."""
    return "met" if is_met else "**not met**"


def read_record() -> dict[str, list[object]]:
    """Return the outcomes by name, in the order of `RUNS`."""
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    return {name: record[name] for name in RUNS if name in record}


def write_inputs(folder: Path) -> None:
    """Write short pairs of HH-RLHF and a reward function into a folder."""
    pairs = (Path(os.environ["ALIGNLAB_DATA"]) / ROWS).read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "rows.jsonl").write_text("".join(pair for pair in pairs if len(pair) < LONGEST), encoding="utf-8")
    (folder / "words.py").write_text(REWARD, encoding="utf-8")


def killed_and_resumed(name: str, cache: Path) -> Outcome:
    """Run a command, kill it after its last stage's first checkpoint, and give it again."""
    before = cpu_seconds()
    with tempfile.TemporaryDirectory(prefix="real-model-") as place:
        folder = Path(place)
        write_inputs(folder)
        method = name.partition(",")[0]
        process = start(name, folder, cache)
        while process.poll() is None and not (saved := saved_steps(cache, method)):
            time.sleep(0.05)
        if process.poll() is not None:
            return failed(process.returncode, folder, cpu_seconds() - before)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        saved = saved_steps(cache, method)
        if code := start(name, folder, cache).wait():
            return failed(code, folder, cpu_seconds() - before)
        log = (folder / "log").read_text(encoding="utf-8")
        resumed = re.search(rf"{method}: [\d,]+ steps, from (\d+)", log)
        outputs = folder / "outputs"
        return Outcome(
            code, max(saved), int(resumed[1]) if resumed else 0, first_ratio(outputs), share_of_bfloat16(outputs),
            cpu_seconds() - before, "",
        )  # fmt: skip


def start(name: str, folder: Path, cache: Path) -> "subprocess.Popen[bytes]":
    """Start a command in a session of its own; its output is written to the file `log`."""
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "alignlab", *COMMON, *RUNS[name]], cwd=folder, stdout=log, stderr=subprocess.STDOUT,
            env=os.environ | {"ALIGNLAB_CACHE": str(cache)}, start_new_session=True,
        )  # fmt: skip


def saved_steps(cache: Path, method: str) -> list[int]:
    """Return the steps of the complete checkpoints of a method's stage."""
    files = cache.glob(f"stages/{method}-*.partial/checkpoints/*/whole.json")
    return [int(file.parent.name.rpartition("-")[2]) for file in files]


def failed(code: int, folder: Path, cpu: float) -> Outcome:
    """Return the outcome of a command that ended too early, with the last line that it printed."""
    last = (folder / "log").read_text(encoding="utf-8").strip().splitlines()[-1:]
    return Outcome(code, 0, 0, None, 0.0, cpu, "".join(last))


def first_ratio(outputs: Path) -> float | None:
    """Return the importance ratio farthest from 1 in the first steps of all rollouts, before the kill and after."""
    lines = [line for file in outputs.rglob("metrics.jsonl") for line in file.read_text().splitlines()]
    ratios = [step["policy/first_ratio"] for step in map(json.loads, lines) if "policy/first_ratio" in step]
    return max(ratios, key=lambda ratio: abs(ratio - 1), default=None)


def share_of_bfloat16(outputs: Path) -> float:
    """Return the least share of multiply-adds in bfloat16 over the phases of the last stage."""
    result = json.loads((outputs / "latest" / "result.json").read_text(encoding="utf-8"))
    phases = result["precision"]["matmuls"].values()
    return min(counts.get("bfloat16", 0) / sum(counts.values()) for counts in phases)


def cpu_seconds() -> float:
    """Return the CPU time of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run the named runs, or all, and record each."""
    with tempfile.TemporaryDirectory(prefix="real-model-cache-") as cache:
        for name in sys.argv[1:] or RUNS:
            outcome = killed_and_resumed(name, Path(cache))
            print(name, outcome, flush=True)
            RECORD.write_text(json.dumps(read_record() | {name: outcome}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
