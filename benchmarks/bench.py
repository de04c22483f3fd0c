"""Train beside TRL and a bare loop, in turns on the same rows, and compare CPU time, memory and the work done.

    make bench                                          # every case three times; half an hour on a free core
    make bench-check                                    # alignlab by the bare loop, beside the last table
    .venv/bin/python benchmarks/bench.py --lora=FOLDER  # DPO with LoRA on a model in a folder, such as SmolLM2

CPU time (`time.process_time`) is what another process on the machine changes least. A side's rate is the tokens of its
steps after the first by their CPU time. Tokens are no padding, and count a pair's prompt twice for every side.
TRL runs as it comes (`trl`), and with its best documented switches (`trl_best`): no gradient checkpointing, which is on
in TRL alone; packing for SFT; the reference in advance for DPO, whose time counts. See `bench_side.py` for the sides.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
RECORD = HERE / "parts" / "bench.json"
FILES = {"train": "harmless-base.train.2000.jsonl", "test": "harmless-base.test.dev.jsonl"}
ROWS, ROUNDS, STEPS, TOLERANCE = 400, 3, 6, 0.2
COMMON = (
    "dataset=hh_rlhf", "method.policy=base", "method.learning_rate=1e-4", "method.num_train_epochs=1",
    "method.batch_size=8", "hardware.device=cpu", "hardware.threads=1", "evaluation=none", "tracking=jsonl",
)  # fmt: skip
MODEL = (
    "model=scratch", "model.vocab_size=4096", "model.hidden_size=256", "model.intermediate_size=688",
    "model.num_hidden_layers=4", "model.num_attention_heads=8", "model.num_key_value_heads=8",
    "model.max_position_embeddings=2048",
)  # fmt: skip


class Case(NamedTuple):
    """One block of the table: a method, its settings, and the sides that are compared; the first is alignlab."""

    name: str
    method: str
    settings: tuple[str, ...]
    sides: tuple[str, ...]


PACKING = "alignlab, packing"
CASES = (
    Case("SFT, 512", "sft", (*MODEL, "method.max_length=512"), ("alignlab", PACKING, "bare", "trl", "trl_best")),
    Case("reward model", "rm", (*MODEL, "method.max_length=512"), ("alignlab", "trl", "trl_best")),
    Case("DPO", "dpo", (*MODEL, "method.max_length=512", "method.nll_weight=0"), ("alignlab", "trl", "trl_best")),
    Case("SFT, 1,024", "sft", (*MODEL, "method.max_length=1024"), ("alignlab", PACKING)),
    Case("SFT, 2,048", "sft", (*MODEL, "method.max_length=2048"), ("alignlab", PACKING)),
)
CHECKED = (
    CASES[0]._replace(sides=("alignlab", PACKING, "bare")),
    *(case._replace(sides=("alignlab",)) for case in CASES[1:3]),
)
Costs = dict[tuple[str, str], list[dict[str, Any]]]  # of each case and side, one a round


def lora_case(folder: str) -> Case:
    """Return the case of a real model with adapters, on pairs of at most 256 tokens."""
    model = ("model=local", f"model.path={folder}", "model/adapter=lora", "hardware.dtype=float32")
    return Case("DPO with LoRA", "dpo", (*model, "method.max_length=256", "method.nll_weight=0"), ("alignlab", "trl"))


def measure(cases: Sequence[Case], rounds: int, steps: int) -> Costs:
    """Run every side of every case, in turns."""
    costs: Costs = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        files = rows_of(Path(name))
        for number in range(rounds):
            for case in cases:
                for side in case.sides:
                    cost = run(case, side, steps, files, Path(name))
                    costs[case.name, side].append(cost)
                    print(number, case.name, side, {k: v for k, v in cost.items() if k != "losses"}, flush=True)
    return costs


def rows_of(folder: Path) -> tuple[str, ...]:
    """Write the first rows of the training file, and return the settings that name the files."""
    data = Path(os.environ["ALIGNLAB_DATA"]) / "hh-rlhf"
    with (data / FILES["train"]).open(encoding="utf-8") as lines:
        (folder / "train.jsonl").write_text("".join(islice(lines, ROWS)), encoding="utf-8")
    return f"dataset.train={folder / 'train.jsonl'}", f"dataset.test={data / FILES['test']}"


def run(case: Case, side: str, steps: int, files: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run one side in a process of its own."""
    packing = ("method.packing=true",) if side == PACKING else ()
    settings = (*COMMON, *case.settings, f"method.max_steps={steps}", *files, *packing)
    command = [sys.executable, str(HERE / "bench_side.py"), case.method, side.partition(",")[0], *settings]
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
    cache = {"ALIGNLAB_CACHE": str(folder / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | quiet | cache)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    cost: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if case.method == "dpo" and side == "trl_best":
        cost["steps"] += cost["reference"]
    return cost | {"rate": cost["tokens"] / cost["steps"]}


def ratios(costs: Costs, case: Case, side: str) -> list[float]:
    """Return alignlab's rate by a side's, in each round."""
    return [
        ours["rate"] / theirs["rate"]
        for ours, theirs in zip(costs[case.name, "alignlab"], costs[case.name, side], strict=True)
    ]


def same_work(costs: Costs, case: Case, side: str) -> str:
    """Say whether a side saw the tokens that alignlab saw, and how far its losses are from alignlab's."""
    ours, theirs = costs[case.name, "alignlab"][0], costs[case.name, side][0]
    if side == PACKING or (case.method == "sft" and side == "trl_best"):
        return f"{theirs['tokens']:,} tokens, packed"
    same = "same tokens" if ours["tokens"] == theirs["tokens"] else f"{theirs['tokens']:,} tokens"
    if case.method == "rm":
        return f"{theirs['tokens']:,} tokens, {ours['tokens']:,} here; rows in random order, another new head"
    first = max(abs(a - b) for a, b in zip(ours["losses"][:1], theirs["losses"][:1], strict=True))
    return f"{same}; first loss within {first:.0e}"


def table(costs: Costs, cases: Sequence[Case], rounds: int, steps: int) -> Iterator[str]:
    """Yield the table."""
    own = "a Llama of 5M weights with a vocabulary of 4,096"
    model = own if MODEL[0] in cases[0].settings else "a model from a folder"
    yield (
        f"`benchmarks/bench.py`: {model}, real HH-RLHF rows, batches of 8, float32, one "
        f"thread, {rounds} rounds of {steps} steps in turns. Rates are tokens a CPU second (median), ratios alignlab's "
        "rate by that side's (median, lowest to highest)."
    )
    yield ""
    yield "| work | side | rate | ratio | peak memory | the same work |"
    yield "|---|---|--:|--:|--:|---|"
    for case in cases:
        for side in case.sides:
            several = costs[case.name, side]
            rate, memory = (statistics.median(cost[name] for cost in several) for name in ("rate", "peak_mb"))
            ratio, checked = "", ""
            if side != "alignlab":
                each = ratios(costs, case, side)
                ratio = f"{statistics.median(each):.2f} ({min(each):.2f}–{max(each):.2f})"
                checked = same_work(costs, case, side)
            yield f"| {case.name} | {side} | {rate:,.0f} | {ratio} | {memory:,.0f} MB | {checked} |"


def relative(costs: Costs) -> dict[str, float]:
    """Return alignlab's rates by the bare loop's, which another machine changes little."""
    bare = statistics.median(cost["rate"] for cost in costs["SFT, 512", "bare"])
    return {
        f"{case}, {side}": statistics.median(cost["rate"] for cost in several) / bare
        for (case, side), several in costs.items()
        if side in ("alignlab", PACKING)
    }


def bench() -> Iterator[str]:
    """Measure every case, keep the rates for `bench-check`, and yield the table; a part of `evidence.py`."""
    costs = measure(CASES, ROUNDS, STEPS)
    RECORD.write_text(json.dumps(relative(costs), indent=1) + "\n", encoding="utf-8")
    yield from table(costs, CASES, ROUNDS, STEPS)


def check() -> int:
    """Compare with the last table; return 1 where a rate, by the bare loop's, has fallen by more than `TOLERANCE`."""
    now, before = relative(measure(CHECKED, 1, STEPS)), json.loads(RECORD.read_text(encoding="utf-8"))
    slower = {name: rate / before[name] for name, rate in now.items() if rate < (1 - TOLERANCE) * before[name]}
    for name, rate in now.items():
        print(f"{name}: {rate:.2f} of the bare loop's rate, {rate / before[name]:.2f} of the last table's")
    return int(bool(slower))


def main(arguments: Sequence[str]) -> int:
    """Run what the command line names."""
    if "--check" in arguments:
        return check()
    folder = next((text.partition("=")[2] for text in arguments if text.startswith("--lora=")), None)
    cases, rounds, steps = ([lora_case(folder)], 1, 2) if folder else (CASES, ROUNDS, STEPS)
    costs = measure(cases, rounds, steps)
    print("\n".join(table(costs, cases, rounds, steps)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
